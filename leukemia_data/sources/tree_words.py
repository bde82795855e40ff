"""How the folders of a source were read, in words: for the reading that people see and manifests keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from leukemia_data.errors import listed
from leukemia_data.files.csv_table import peek_header
from leukemia_data.samples.record import ImagePlace
from leukemia_data.sources.found_image import FoundImage
from leukemia_data.sources.name_words import is_variant
from leukemia_data.sources.part_reading import PartReading
from leukemia_data.sources.reading import CNMC_NAMING, TableFound
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree_choice import TreeChoice, other_folders
from leukemia_data.sources.tree_classes import find_parts
from leukemia_data.sources.tree_file import TreeFile
from leukemia_data.sources.tree_folders import TreeFolder
from leukemia_data.sources.tree_images import Tree, TreeImages

_MAX_LISTED = 5
_MAX_TABLES = 8


def told_by(trees: Sequence[Tree]) -> str:
    """What tells the next build that a file has changed."""
    if all(isinstance(tree.root, Path) for tree in trees):
        return "size, modification time, change time and number of the file"
    return "size, modification time and tag of the object"


def lists_images(table: TreeFile) -> bool:
    """Whether a table found below a folder has columns."""
    return bool(peek_header(table.path))


def describe_trees(
    part: PartReading,
    found: TreeImages,
    choice: TreeChoice,
    options: ReadingOptions,
    label_tables: Sequence[ImagePlace],
) -> None:
    """Say in words how the trees were read.

    Parameters
    ----------
    part
        Is told; its images are in the order of those found.
    found, choice, options
        What was read, and how.
    label_tables
        C-NMC label tables that were read.
    """
    labelled = [folder for folder in found.folders if not folder.is_test_set]
    part.class_sources = _class_sources(labelled, choice, label_tables)
    part.subject_sources = _subject_sources(part.images, found, choice, options)
    for folder in found.folders:
        for position, name in enumerate(folder.names):
            split = choice.splits.split_at(folder.names, position)
            if split:
                part.split_words.setdefault(split, {}).setdefault(name)
    part.other_folders = other_folders(find_parts(labelled, choice.splits), choice)
    part.tables = [_table_found(table, label_tables) for table in found.tables[:_MAX_TABLES]]
    part.notes = [*_notes_on_preliminary(found, part.images), *_notes_on_names(part.images), *_notes_on_twins(found)]


def _class_sources(labelled: Sequence[TreeFolder], choice: TreeChoice, label_tables: Sequence[ImagePlace]) -> list[str]:
    sources = []
    if choice.by_name and any(any(folder.num_named) for folder in labelled):
        sources.append(CNMC_NAMING)
    places = [(folder, choice.level.position_of.get(folder.names)) for folder in labelled]
    levels = sorted({position - folder.num_given + 1 for folder, position in places if position is not None})
    if levels:
        shown = [f"folder level {level}" if level > 0 else "the names of the sources" for level in levels]
        sources.append(" and ".join(dict.fromkeys(shown)))
    if label_tables:
        sources.append(f"table {label_tables[0].name}")
    return sources


def _subject_sources(
    images: Sequence[FoundImage], found: TreeImages, choice: TreeChoice, options: ReadingOptions
) -> list[str]:
    if options.subject_pattern is not None:
        return [f"--subject-pattern {options.subject_pattern}"]
    sources = []
    is_named = (image.subject and cell is not None for (_, cell), image in zip(found.images, images, strict=True))
    is_listed = (
        image.subject and file.folder.is_preliminary for (file, _), image in zip(found.images, images, strict=True)
    )
    if options.subject_from in (None, "name") and (any(is_named) or any(is_listed)):
        sources.append(CNMC_NAMING)
    if any(choice.subject_of.values()):
        sources.append("folders" if options.subject_from == "folder" else "folders of a known form")
    return sources


def _table_found(table: TreeFile, label_tables: Sequence[ImagePlace]) -> TableFound:
    if table.path in label_tables:
        return TableFound(name=table.record_id, read={"label": "labels", "subject": "Patient_ID", "file": "new_names"})
    header = tuple(title for title in peek_header(table.path) if title)
    return TableFound(name=table.record_id, not_read=header, is_source=False)


def _notes_on_preliminary(found: TreeImages, images: Sequence[FoundImage]) -> list[str]:
    num_unnamed = sum(
        image.class_name is None and file.folder.is_preliminary
        for (file, _), image in zip(found.images, images, strict=True)
    )
    if not num_unnamed:
        return []
    return [f"{num_unnamed} preliminary test images have no row in a label table: taken as unlabelled"]


def _notes_on_names(images: Sequence[FoundImage]) -> list[str]:
    spellings = Counter(image.record_id.lower() for image in images)
    if len(spellings) == len(images):
        return []
    alike = [image.record_id for image in images if spellings[image.record_id.lower()] > 1]
    return [
        f"{len(alike)} images differ from another in nothing but the case of their names: taken as images of their own "
        f"here, one file where case does not count: {listed(alike, most=_MAX_LISTED)}"
    ]


def _notes_on_twins(found: TreeImages) -> list[str]:
    """Say where the same names lie in folders of several treatments: the same cells, more than once."""
    treated = {id(folder): next((name for name in folder.names if is_variant(name)), "") for folder in found.folders}
    if len(set(treated.values()) - {""}) < 2:
        return []
    names = Counter(file.name for file, _ in found.images if treated[id(file.folder)])
    num_twins = sum(count for count in names.values() if count > 1)
    if not num_twins:
        return []
    kinds = ", ".join(sorted(set(treated.values()) - {""}))
    return [
        f"{num_twins:,} images have the name of another in folders of different treatment ({kinds}): the same cells "
        "may be there more than once, and on both sides of a split; --exclude leaves a folder out"
    ]
