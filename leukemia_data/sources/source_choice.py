"""The images to use: those given, or the first of the default places, or a sample of generated cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.records.record import ImagePlace
from leukemia_data.stores.url import Location, Url, parse_location

SOURCE_VARIABLE = "LDATA_SOURCE"
DEFAULT_SOURCE = Path("data")
DEFAULT_CACHE_ROOT = Path("cache")
SAMPLE_DIR_NAME = "sample-images"
SAMPLE_CACHE_NAME = "sample"
SAMPLE_SUBJECTS = 24
SAMPLE_CELLS = 20


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """The chosen source and the reason; `is_sample`: it is the built-in sample, maybe not generated yet."""

    paths: tuple[ImagePlace, ...]
    reason: str = "given"
    is_sample: bool = False

    @property
    def cache_name(self) -> str | None:
        """Name of the source's caches; None if it depends on the listing."""
        return SAMPLE_CACHE_NAME if self.is_sample else None


def choose_source(given: Sequence[ImagePlace], environment: Mapping[str, str], cache_root: Location) -> SourceChoice:
    """Return what is given, else ``$LDATA_SOURCE``, else ``./data``, else the built-in sample.

    The sample is stored in the folder of the caches, or in ``./cache`` if they are at an address.
    """
    if given:
        return SourceChoice(tuple(given))
    if environment.get(SOURCE_VARIABLE):
        return SourceChoice((source_place(environment[SOURCE_VARIABLE]),), f"from ${SOURCE_VARIABLE}")
    reason = f"no SOURCE given, ${SOURCE_VARIABLE} not set"
    if DEFAULT_SOURCE.is_dir():
        return SourceChoice((DEFAULT_SOURCE,), f"{reason}: found ./{DEFAULT_SOURCE}")
    reason = f"{reason}, no ./{DEFAULT_SOURCE}: the built-in sample of generated cells"
    sample_root = cache_root if isinstance(cache_root, Path) else DEFAULT_CACHE_ROOT
    return SourceChoice((sample_root / SAMPLE_DIR_NAME,), reason, is_sample=True)


def announce_source(choice: SourceChoice, console: Console = NULL_CONSOLE) -> None:
    """Note the chosen source, and generate the built-in sample if it is missing."""
    console.note(f"source: {', '.join(map(str, choice.paths))} ({choice.reason})")
    directory = choice.paths[0]
    if choice.is_sample and isinstance(directory, Path) and not directory.is_dir():
        _generate_sample(directory, console)


def source_place(text: str) -> ImagePlace:
    """Return the path or the address that a text denotes."""
    location = parse_location(text)
    if not isinstance(location, Url):
        return location
    from leukemia_data.stores.object_store import stored_url

    return stored_url(location)


def _generate_sample(directory: Path, console: Console) -> None:
    """Write the built-in sample; only a complete one gets the directory's name."""
    from leukemia_data.files.atomic import move_into_place
    from leukemia_data.files.lock import lock_cache, note_waiting
    from leukemia_data.sources.sample_set import write_sample

    partial_directory = directory.with_name(f"{directory.name}.partial")
    with lock_cache(directory.parent, "generating the sample", on_busy=partial(note_waiting, console)):
        if directory.is_dir():
            return
        with console.progress(SAMPLE_SUBJECTS * SAMPLE_CELLS, "generating the sample") as bar:
            write_sample(
                partial_directory, num_subjects=SAMPLE_SUBJECTS, cells_per_subject=SAMPLE_CELLS, progress=bar.update
            )
        move_into_place(partial_directory, directory)
