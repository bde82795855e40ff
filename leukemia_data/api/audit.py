"""What is wrong with a data set, and which subjects renumbered files show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leukemia_data.api.arguments import (
    CachePlace,
    Place,
    as_image_place,
    as_optional_path,
    as_path,
    as_root,
    console_of,
    place_of,
)

if TYPE_CHECKING:
    from leukemia_data.auditing.run_audit import Audit
    from leukemia_data.auditing.subject_recovery import SubjectRecovery
    from leukemia_data.console import Console
    from leukemia_data.sources.reading_options import ReadingOptions


def audit(
    *inputs: CachePlace,
    references: Sequence[Place] = (),
    split: str | None = None,
    seed: int = 0,
    max_distance: int | None = 10,
    out: Place | None = None,
    size: int | None = None,
    root: Place | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    verbose: bool | Console = False,
) -> Audit:
    """Audit caches, folders and tables of images: leaks, near duplicates, wrong labels, balance, odd frames.

    Parameters
    ----------
    inputs
        Caches and sources; several are compared with each other.
    references
        Tables of names with SHA-256, without pixels.
    split, seed
        A split of the only input, to be checked.
    max_distance
        Maximal bits of 64 in which the hashes of near duplicates differ; None: they are not looked for.
    out
        Folder for the findings as tables and pictures.
    size, root, allow_outside, reading
        As for :func:`open_cache` and :func:`scan`.
    """
    from leukemia_data.auditing.run_audit import audit as audit_inputs

    return audit_inputs(
        [as_image_place(place_of(each), "inputs") for each in inputs],
        references=[as_path(each, "references") for each in references],
        reading=reading,
        root=as_root(root),
        allow_outside=allow_outside,
        size_px=size,
        split=split,
        seed=seed,
        max_distance=max_distance,
        out=as_optional_path(out, "out"),
        console=console_of(verbose),
    )


def recover_subjects(
    *tables: Place,
    references: Sequence[Place],
    out: Place,
    root: Place | None = None,
    allow_outside: bool = False,
    join_linked: bool = False,
    verbose: bool | Console = False,
) -> SubjectRecovery:
    """Find by content which subjects renumbered files show, and write the CSV tables with them into the folder `out`.

    Parameters
    ----------
    references
        Folders of the images under their own names, caches of them, or tables with SHA-256.
    join_linked
        Treat subjects that share identical images as one.
    root, allow_outside
        As for :func:`scan`.
    """
    from leukemia_data.auditing.subject_recovery import recover_subjects as recover

    return recover(
        [as_path(table, "tables") for table in tables],
        [as_path(each, "references") for each in references],
        as_path(out, "out"),
        root=as_root(root),
        allow_outside=allow_outside,
        join_linked=join_linked,
        console=console_of(verbose),
    )
