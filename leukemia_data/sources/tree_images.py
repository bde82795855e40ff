"""What lies in the folders of a source: its images, each with what its name tells, tables, and what is passed over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from leukemia_data.files.csv_table import peek_header
from leukemia_data.samples.record import NO_FOLD, CellName, ImagePlace, parse_cell_name
from leukemia_data.sources.cnmc_labels import is_label_table
from leukemia_data.sources.folder_walk import walk_folder
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, stem_of, suffix_of
from leukemia_data.sources.name_words import is_mask, is_thumbnails
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.store_walk import walk_store
from leukemia_data.sources.tree_file import (
    EXCLUDED,
    MASKS,
    MERGED_COPIES,
    NO_REGULAR_FILE,
    OTHER_FILES,
    THUMBNAILS,
    PassedOver,
    TreeFile,
)
from leukemia_data.sources.tree_folders import TreeFolder, has_test_set_names, mark_test_sets

TABLE_SUFFIXES = (".csv", ".tsv")
_FIGURE_MARK, _FIGURE_BYTES = b"Software\0Matplotlib", 1024
_MASK = "mask"
_MASK_END = re.compile(r"[ _.-]*(?:seg(?:mentation)?[ _.-]*)?masks?[ _.-]?\d*")


class Tree(NamedTuple):
    """A folder that is read as a source, and the names that tell it from others."""

    root: ImagePlace
    given_names: tuple[str, ...] = ()


@dataclass(slots=True)
class TreeImages:
    """What was found.

    Attributes
    ----------
    images
        Files that bear an image's name, and the cell that a C-NMC name among them tells.
    tables
        Tables beside or above them.
    passed_over
        All else, by reason.
    folders
        The folders that hold images, each once.
    """

    images: list[tuple[TreeFile, CellName | None]] = field(default_factory=list)
    tables: list[TreeFile] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    folders: list[TreeFolder] = field(default_factory=list)


def find_images(trees: Sequence[Tree], options: ReadingOptions) -> TreeImages:
    """Walk the folders of a source, and leave out what is no image of its own: masks, thumbnails, merged copies.

    The folders of the images know afterwards how many they hold.
    """
    found = TreeImages()
    for tree in trees:
        _walk(tree, options, found)
    _leave_out_folders(found)
    _leave_out_mask_files(found)
    _leave_out_merged_copies(found)
    for file, cell in found.images:
        folder = file.folder
        folder.num_images += 1
        if cell is not None:
            folder.num_named[cell.label] += 1
    found.folders = [folder for folder in found.folders if folder.num_images]
    if has_test_set_names(found.folders) and _is_cnmc(found):
        mark_test_sets(found.folders)
    return found


def _is_cnmc(found: TreeImages) -> bool:
    """Whether anything but the name of a test set's folder says that these are C-NMC's images."""
    return (
        any(any(folder.num_named) for folder in found.folders)
        or any("nmc" in name.lower() for folder in found.folders for name in folder.names)
        or any(is_label_table(peek_header(table.path)) for table in found.tables)
    )


def _walk(tree: Tree, options: ReadingOptions, found: TreeImages) -> None:
    root, names, passed_over = tree.root, tree.given_names, found.passed_over
    patterns = options.excluding("/".join(names)) if names else set()
    if patterns:
        passed_over.patterns |= patterns
        passed_over.add(EXCLUDED, "/".join(names))
        return
    files = (
        walk_folder(root, passed_over, options, names)
        if isinstance(root, Path)
        else walk_store(root, passed_over, options, names)
    )
    folders: dict[int, TreeFolder] = {}
    for file in files:
        suffix = suffix_of(file.name)
        if suffix in IMAGE_SUFFIXES:
            found.images.append((file, parse_cell_name(file.name)))
            folders[id(file.folder)] = file.folder
        elif not file.state.is_file:
            passed_over.add(NO_REGULAR_FILE, file.record_id)
        elif suffix in TABLE_SUFFIXES:
            found.tables.append(file)
        else:
            passed_over.add(OTHER_FILES, file.record_id)
    found.folders.extend(folders.values())


def _leave_out_folders(found: TreeImages) -> None:
    """Pass over folders of masks and thumbnails, unless there is nothing else."""
    reasons = {id(folder): _folder_reason(folder) for folder in found.folders}
    if not any(reasons.values()) or all(reasons.values()):
        return
    kept = []
    for file, cell in found.images:
        reason = reasons[id(file.folder)]
        if reason:
            found.passed_over.add(reason, file.record_id)
        else:
            kept.append((file, cell))
    found.images = kept


def _folder_reason(folder: TreeFolder) -> str:
    below = folder.names[folder.num_given :]
    return MASKS if any(map(is_mask, below)) else THUMBNAILS if any(map(is_thumbnails, below)) else ""


def _leave_out_mask_files(found: TreeImages) -> None:
    """Pass over files such as ``1_mask.png`` that lie beside their ``1.png``."""
    suspects = {id(file.folder) for file, _ in found.images if _MASK in file.name.lower()}
    if not suspects:
        return
    present = {(id(file.folder), stem_of(file.name).lower()) for file, _ in found.images if id(file.folder) in suspects}
    kept = []
    for file, cell in found.images:
        if any((id(file.folder), origin) in present for origin in _origins(stem_of(file.name).lower())):
            found.passed_over.add(MASKS, file.record_id)
        else:
            kept.append((file, cell))
    found.images = kept


def is_figure(file: TreeFile) -> bool:
    """Whether a PNG says that matplotlib drew it, as the figures of ltrain and ldata do."""
    if file.suffix != ".png" or not file.state.is_file or not isinstance(file.location, str):
        return False
    try:
        with open(file.location, "rb") as stream:  # noqa: PTH123 - text, as all places of a walk
            return _FIGURE_MARK in stream.read(_FIGURE_BYTES)
    except OSError:
        return False


def _origins(stem: str) -> list[str]:
    """Names of which a mask's name may be made."""
    ends = [match.start() for match in re.finditer(_MASK, stem)]
    return [stem[:start] for end in ends for start in range(end, 0, -1) if _MASK_END.fullmatch(stem, start)]


def _leave_out_merged_copies(found: TreeImages) -> None:
    """Pass over a ``train_merged`` folder's copies of images that the fold folders hold too."""
    merged = {id(folder) for folder in found.folders if folder.is_merged}
    if not merged:
        return
    in_folds = {file.name for file, _ in found.images if file.folder.fold != NO_FOLD}
    kept = []
    for file, cell in found.images:
        if id(file.folder) in merged and file.name in in_folds:
            found.passed_over.add(MERGED_COPIES, file.record_id)
        else:
            kept.append((file, cell))
    found.images = kept
