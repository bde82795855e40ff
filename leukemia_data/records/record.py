"""One source image's metadata, and what a C-NMC file name says about it.

C-NMC names its cells ``UID_<P>_<photo>_<cell>_all.bmp`` and ``UID_H<S>_<photo>_<cell>_hem.bmp``. Patient ``1`` and
healthy subject ``H1`` are different people, so the ``H`` belongs to the subject's id; case does not (one subject
of the published set is written ``h3``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from leukemia_data.files.file_state import NO_FILE, FileState

if TYPE_CHECKING:
    # Loads fsspec, which images on disks have no use for.
    from leukemia_data.stores.object_store import StoredUrl

ImagePlace: TypeAlias = "Path | StoredUrl"
"""Where an image lies: a file of this machine, or an object in a store. Either has a name, and bytes to read."""
UNKNOWN_LABEL = -1
NO_FOLD = -1
CELL_CLASSES = ("hem", "all")
"""The two C-NMC classes; a class's position is its label: 0 normal (hem), 1 leukaemia (all)."""
GIVEN_SPLITS = ("train", "valid", "test")

_CELL_LABELS = {name: label for label, name in enumerate(CELL_CLASSES)}

_UID_NAME = re.compile(r"uid_(h?\d{1,9})_(\d{1,9})_(\d{1,9})_(all|hem)", re.IGNORECASE)


class CellName(NamedTuple):
    """What a C-NMC file name tells: who, which photograph, which cell in it, which class."""

    subject: str
    photo: int
    cell: int
    label: int


@dataclass(frozen=True, slots=True)
class Record:
    """One source image before its pixels are read.

    Attributes
    ----------
    record_id
        Unique in its source and free of absolute paths: the path below the source's root with ``/`` between
        its parts (what no terminal can show of it escaped), or a table's ``Path`` string unchanged.
    path
        Where the image lies now: a file of this machine or an object's address.
    label
        Position in the source's class list, or :data:`UNKNOWN_LABEL`.
    subject
        Whose cell it is; empty where nothing tells.
    split, fold
        What the source brought: ``train``, ``valid``, ``test`` or empty, and the number of a fold or
        :data:`NO_FOLD`.
    state
        The file's state when it was listed; :data:`~leukemia_data.files.file_state.NO_FILE` for what is no regular file
        or none at all.
    """

    record_id: str
    path: ImagePlace
    label: int = UNKNOWN_LABEL
    subject: str = ""
    split: str = ""
    fold: int = NO_FOLD
    state: FileState = NO_FILE

    @property
    def is_missing(self) -> bool:
        """Whether there was no regular file at its place: nothing at all, a link that leads nowhere, a pipe."""
        return not self.state.is_file


def parse_cell_name(file_name: str) -> CellName | None:
    """Read a C-NMC file name, with or without its extension; ``None`` where it is not one.

    >>> parse_cell_name("UID_h3_12_4_hem.bmp")
    CellName(subject='H3', photo=12, cell=4, label=0)
    """
    match = _UID_NAME.fullmatch(file_name.rsplit(".", 1)[0])
    if match is None:
        return None
    subject, photo, cell, class_name = match.groups()
    return CellName(subject.upper(), int(photo), int(cell), _CELL_LABELS[class_name.lower()])
