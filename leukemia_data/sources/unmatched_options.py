"""Options that mean nothing in a source: its user would believe that a misspelled one were heeded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.table_problems import shown
from leukemia_data.samples.record import ImagePlace
from leukemia_data.sources.found_image import FoundImage, own_name
from leukemia_data.sources.name_words import plain
from leukemia_data.sources.part_reading import PartReading
from leukemia_data.sources.reading_options import ReadingOptions, matches_glob

_MAX_EXAMPLES = 3


def require_tables(options: ReadingOptions) -> None:
    """Refuse options for columns where no source is a table.

    Raises
    ------
    UsageError
        If there is one.
    """
    columns = {
        "--path-column": options.path_column,
        "--label-column": options.label_column,
        "--subject-column": options.subject_column,
        "--split-column": options.split_column,
    }
    given = [f"{option} {column}" for option, column in columns.items() if column is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: no SOURCE is a table; give the .csv file, or leave the option out")


def require_unlabelled_table(options: ReadingOptions, parts: Sequence[PartReading]) -> None:
    """Refuse a class level where columns tell the classes of all tables, and no source is a folder.

    Raises
    ------
    UsageError
        If it means nothing.
    """
    tables = [table for part in parts for table in part.tables]
    if options.class_level is not None and all("label" in table.read for table in tables):
        titles = listed(dict.fromkeys(table.read["label"] for table in tables))
        raise UsageError(
            f"--class-level: the classes are told by column {titles}; leave it out, or read folders instead with "
            "--label-column none"
        )


def require_folders(options: ReadingOptions, paths: Sequence[ImagePlace], images: Sequence[FoundImage]) -> None:
    """Refuse names of split folders that no folder has, the sources themselves included.

    Raises
    ------
    SourceError
        With what the paths look like.
    """
    known = {plain(own_name(path)) for path in paths} | _folders_of(images)
    absent = [name for _, names in options.split_folders for name in names if plain(name.strip("/")) not in known]
    if absent:
        examples = listed((shown(image.record_id) for image in images[:: _step(len(images))]), most=_MAX_EXAMPLES)
        raise SourceError(f"--split-folders: there is no folder {listed(absent)}; paths are such as {examples}")


def idle_notes(options: ReadingOptions, parts: Sequence[PartReading]) -> list[str]:
    """Say which patterns exclude nothing: refused, they could not be kept for the day when there is something."""
    return [f"--exclude {pattern} excludes nothing" for pattern in _idle_patterns(options, parts)]


def _step(num_images: int) -> int:
    """So that the examples come from all over the source."""
    return max(1, -(-num_images // _MAX_EXAMPLES))


def _idle_patterns(options: ReadingOptions, parts: Sequence[PartReading]) -> list[str]:
    """Patterns that nothing matched; what lies in a folder that another one excludes was never looked at."""
    matched = {pattern for part in parts for pattern in part.passed_over.patterns}
    return [
        pattern
        for pattern in dict.fromkeys(options.exclude)
        if pattern not in matched and not any(matches_glob(other, pattern.strip("/")) for other in matched)
    ]


def _folders_of(images: Sequence[FoundImage]) -> set[str]:
    folders = {image.record_id.rpartition("/")[0] for image in images}
    # Tables may write them with backslashes.
    folders.update(image.record_id.replace("\\", "/").rpartition("/")[0] for image in images)
    return set(_folder_names(folders))


def _folder_names(folders: Iterable[str]) -> Iterable[str]:
    """Every folder on the way to these, by its name and by its path."""
    for folder in folders:
        parts = plain(folder.strip().removeprefix("./")).split("/")
        yield from parts
        yield from ("/".join(parts[:depth]) for depth in range(2, len(parts) + 1))
