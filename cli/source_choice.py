"""Which images are meant when no source is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.locations import source_place
from cli.output import print_note, print_waiting
from leukemia_data.records.record import ImagePlace

SOURCE_VARIABLE = "LDATA_SOURCE"
DEFAULT_SOURCE = Path("data")
SAMPLE_DIR_NAME = "sample-images"
SAMPLE_CACHE_NAME = "sample"
SAMPLE_SUBJECTS = 24
SAMPLE_CELLS = 20


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """The chosen source, why, and whether it is the built-in sample (which may have to be generated)."""

    paths: tuple[ImagePlace, ...]
    reason: str
    is_sample: bool = False


def choose_source(arguments: Sequence[ImagePlace], environment: Mapping[str, str], cache_root: Path) -> SourceChoice:
    """Arguments first, then ``$LDATA_SOURCE``, then ``./data``, then the built-in sample."""
    if arguments:
        return SourceChoice(tuple(arguments), "given")
    if environment.get(SOURCE_VARIABLE):
        return SourceChoice((source_place(environment[SOURCE_VARIABLE]),), f"from ${SOURCE_VARIABLE}")
    if DEFAULT_SOURCE.is_dir():
        return SourceChoice((DEFAULT_SOURCE,), f"no SOURCE given, ${SOURCE_VARIABLE} not set: found ./{DEFAULT_SOURCE}")
    reason = (
        f"no SOURCE given, ${SOURCE_VARIABLE} not set, no ./{DEFAULT_SOURCE}: the built-in sample of generated cells"
    )
    return SourceChoice((cache_root / SAMPLE_DIR_NAME,), reason, is_sample=True)


def announce_source(choice: SourceChoice) -> None:
    """Say on stderr which source is used, and generate the built-in sample where it is not there yet."""
    print_note(f"source: {', '.join(map(str, choice.paths))} ({choice.reason})")
    directory = choice.paths[0]
    if choice.is_sample and isinstance(directory, Path) and not directory.is_dir():
        _generate_sample(directory)


def _generate_sample(directory: Path) -> None:
    """Write the built-in sample; only a whole one gets the directory's name."""
    # OpenCV and tqdm take as long to load as all the rest of a build with nothing to do.
    from cli.progress import progress_bar
    from leukemia_data.files.lock import lock_cache
    from leukemia_data.sources.sample_cells import write_sample

    partial = directory.with_name(f"{directory.name}.partial")
    with lock_cache(directory.parent, "generating the sample", on_busy=print_waiting):
        # Another process may have been faster.
        if directory.is_dir():
            return
        with progress_bar(SAMPLE_SUBJECTS * SAMPLE_CELLS, "generating the sample") as bar:
            write_sample(partial, num_subjects=SAMPLE_SUBJECTS, cells_per_subject=SAMPLE_CELLS, progress=bar.update)
        partial.replace(directory)
