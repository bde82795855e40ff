"""Everything below a folder or an address: images with what their names say, and tables."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from leukemia_data.errors import SourceError
from leukemia_data.files.atomic import NO_FILE, FileState, state_of
from leukemia_data.files.csv_table import peek_header
from leukemia_data.records.record import (
    IMAGE_SUFFIXES,
    NO_FOLD,
    CellName,
    ImagePlace,
    parse_cell_name,
    printable_name,
    stem_of,
    suffix_of,
)
from leukemia_data.sources.classes import is_label_table
from leukemia_data.sources.name_words import is_mask, is_thumbnails
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree_folders import (
    EXCLUDED,
    MASKS,
    MERGED_COPIES,
    NO_REGULAR_FILE,
    OTHER_FILES,
    OUTPUT,
    THUMBNAILS,
    PassedOver,
    TreeFile,
    TreeFolder,
    has_test_set_names,
    is_output,
    mark_test_sets,
    why_passed_over,
)

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredObject, StoredUrl


@dataclass(slots=True)
class _OpenFolder:
    """A folder on the current path of a walk."""

    place: str
    names: tuple[str, ...]
    folder: TreeFolder
    key: tuple[int, int]
    entries: Iterator[os.DirEntry[str]]
    is_output: bool
    has_image: bool = False


def walk_folder(
    root: Path, passed_over: PassedOver, options: ReadingOptions, given_names: Sequence[str] = ()
) -> Iterator[TreeFile]:
    """Yield all files below a folder, in the order of the names.

    Links are followed, except back into a folder above. A folder with an image's name and no image in it counts as an
    image that is no file.

    Parameters
    ----------
    root
        The folder.
    passed_over
        Records what is skipped: hidden files, folders of systems, outputs of ltrain and ldata, and what the options
        exclude.
    given_names
        Names at the start of all ids, which distinguish several sources.

    Raises
    ------
    SourceError
        If a folder cannot be listed.
    """
    start = _open(os.fspath(root), tuple(given_names), len(given_names))
    way, keys = [start], {start.key, *_keys_above(root)}
    while way:
        here = way[-1]
        entry = next(here.entries, None)
        if entry is None:
            way.pop()
            keys.discard(here.key)
            yield from _close(here, way)
            continue
        reason = _why_not(here, entry.name, options, passed_over)
        if reason is not None:
            passed_over.add(reason, here.folder.id_prefix + printable_name(entry.name))
        elif not _is_folder(entry):
            here.has_image = here.has_image or suffix_of(entry.name) in IMAGE_SUFFIXES
            yield _describe_entry(here.folder, entry)
        else:
            below = _open(entry.path, (*here.names, entry.name), len(given_names))
            if below.is_output:
                passed_over.add(OUTPUT, below.folder.id_prefix)
            elif below.key not in keys:
                way.append(below)
                keys.add(below.key)


def _keys_above(root: Path) -> Iterator[tuple[int, int]]:
    """Identity of the folders above the root: a link to one of them would repeat everything."""
    for folder in root.resolve().parents:
        with suppress(OSError):
            status = folder.stat()
            yield status.st_dev, status.st_ino


def _why_not(here: _OpenFolder, name: str, options: ReadingOptions, passed_over: PassedOver) -> str | None:
    reason = why_passed_over(name)
    if options.exclude:
        ending = printable_name(name)
        paths = ("/".join((*here.folder.names[here.folder.num_given :], ending)), here.folder.id_prefix + ending)
        patterns = options.excluding(*paths)
        passed_over.patterns |= patterns
        reason = reason or (EXCLUDED if patterns else None)
    return reason


def _close(done: _OpenFolder, way: Sequence[_OpenFolder]) -> Iterator[TreeFile]:
    """Report images to the folder above; a folder with an image's name and no image stands for one."""
    if not way:
        return
    above = way[-1]
    name = done.names[-1]
    if not done.has_image and suffix_of(name) in IMAGE_SUFFIXES:
        yield TreeFile(above.folder, name, done.place, NO_FILE)
        above.has_image = True
    above.has_image = above.has_image or done.has_image


def _open(place: str, names: tuple[str, ...], num_given: int) -> _OpenFolder:
    try:
        status = os.stat(place)  # noqa: PTH116 - text, as all places of a walk
        entries = sorted(os.scandir(place), key=attrgetter("name"))
    except OSError as error:
        raise SourceError(f"cannot list {printable_name(place)}: {error.strerror}") from error
    folder, is_own = TreeFolder.of(names, num_given), is_output(entry.name for entry in entries)
    return _OpenFolder(place, names, folder, (status.st_dev, status.st_ino), iter(entries), is_own)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link in a circle, or into a folder that may not be entered.
        return False


def _describe_entry(folder: TreeFolder, entry: os.DirEntry[str]) -> TreeFile:
    """A file with its state; ``NO_FILE`` unless it is an existing regular file."""
    with suppress(OSError):
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            return TreeFile(folder, entry.name, entry.path, state_of(status))
    return TreeFile(folder, entry.name, entry.path, NO_FILE)


_SECOND_NS = 10**9


def walk_store(
    root: StoredUrl, passed_over: PassedOver, options: ReadingOptions, given_names: Sequence[str] = ()
) -> Iterator[TreeFile]:
    """Yield all objects below an address, as :func:`walk_folder` yields files.

    Folders are the prefixes of object names. A part of a name may be empty (``a//1.bmp``): it is kept.
    """
    folders: dict[str, TreeFolder] = {}
    listed = sorted((name.split("/"), name, state) for name, state in root.walk())
    outputs = _output_folders([parts for parts, _, _ in listed])
    left_out: set[str] = set()
    for parts, name, state in listed:
        above = name[: -len(parts[-1])]
        if above not in folders:
            folders[above] = TreeFolder.of((*given_names, *parts[:-1]), len(given_names))
        reason, place = _why_not_object(parts, outputs, options, given_names, passed_over)
        if reason is None:
            yield TreeFile(folders[above], parts[-1], root / name, stored_state(state))
        elif place not in left_out:
            left_out.add(place)
            passed_over.add(reason, printable_name("/".join((*given_names, place))))


def _why_not_object(
    parts: Sequence[str],
    outputs: set[str],
    options: ReadingOptions,
    given_names: Sequence[str],
    passed_over: PassedOver,
) -> tuple[str | None, str]:
    """Why an object is skipped, and the outermost folder for which that holds."""
    for number, part in enumerate(parts, 1):
        place = "/".join(parts[:number])
        reason = OUTPUT if place in outputs else why_passed_over(part)
        if options.exclude:
            patterns = options.excluding(printable_name(place), "/".join((*given_names, printable_name(place))))
            passed_over.patterns |= patterns
            reason = reason or (EXCLUDED if patterns else None)
        if reason is not None:
            return reason, place
    return None, ""


def _output_folders(names: Sequence[Sequence[str]]) -> set[str]:
    """Folders that ltrain or ldata wrote, except the source itself."""
    files: dict[str, list[str]] = {}
    for parts in names:
        files.setdefault("/".join(parts[:-1]), []).append(parts[-1])
    return {folder for folder, held in files.items() if folder and is_output(held)}


def stored_state(state: StoredObject) -> FileState:
    """Return an object's state; its tag (ETag), if any, replaces the fraction of a second.

    S3 has a resolution of seconds, and two versions of one size may be written in the same one; their tags differ.
    """
    time_ns = state.modified_ns
    if state.tag:
        time_ns = time_ns // _SECOND_NS * _SECOND_NS + zlib.crc32(state.tag.encode()) % _SECOND_NS
    return FileState(state.num_bytes, time_ns)


TABLE_SUFFIXES = (".csv", ".tsv")
_FIGURE_MARK, _FIGURE_BYTES = b"Software\0Matplotlib", 1024
_MASK = "mask"
_MASK_END = re.compile(r"[ _.-]*(?:seg(?:mentation)?[ _.-]*)?masks?[ _.-]?\d*")


class Tree(NamedTuple):
    """A folder that is read as a source, and the names that distinguish it from others."""

    root: ImagePlace
    given_names: tuple[str, ...] = ()


@dataclass(slots=True)
class TreeImages:
    """Images and tables found in a source.

    Attributes
    ----------
    images
        Files with an image's name, each with the parts of its name if that is a C-NMC name.
    tables
        Tables among them.
    passed_over
        All else, by reason.
    folders
        The folders that hold images, each once.
    """

    images: list[tuple[TreeFile, CellName | None]] = field(default_factory=list)
    tables: list[TreeFile] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    folders: list[TreeFolder] = field(default_factory=list)

    def leave_out(self, reason_of: Callable[[TreeFile, CellName | None], str]) -> None:
        """Pass over the images for which a function returns a reason, not an empty text."""
        kept = []
        for file, cell in self.images:
            reason = reason_of(file, cell)
            if reason:
                self.passed_over.add(reason, file.record_id)
            else:
                kept.append((file, cell))
        self.images = kept


def find_images(trees: Sequence[Tree], options: ReadingOptions) -> TreeImages:
    """Find the images of a source, without masks, thumbnails and merged copies; count them in their folders."""
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
    """Whether anything but the name of a test set's folder shows that these are C-NMC's images."""
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
    if any(reasons.values()) and not all(reasons.values()):
        found.leave_out(lambda file, _: reasons[id(file.folder)])


def _folder_reason(folder: TreeFolder) -> str:
    below = folder.names[folder.num_given :]
    return MASKS if any(map(is_mask, below)) else THUMBNAILS if any(map(is_thumbnails, below)) else ""


def _leave_out_mask_files(found: TreeImages) -> None:
    """Pass over files such as ``1_mask.png`` beside ``1.png``."""
    suspects = {id(file.folder) for file, _ in found.images if _MASK in file.name.lower()}
    present = {(id(file.folder), stem_of(file.name).lower()) for file, _ in found.images if id(file.folder) in suspects}

    def is_mask_of_another(file: TreeFile) -> bool:
        return any((id(file.folder), origin) in present for origin in _origins(stem_of(file.name).lower()))

    if suspects:
        found.leave_out(lambda file, _: MASKS if is_mask_of_another(file) else "")


def is_figure(file: TreeFile) -> bool:
    """Return whether a PNG was drawn by matplotlib, as the figures of ltrain and ldata are."""
    if file.suffix != ".png" or not file.state.is_file or not isinstance(file.location, str):
        return False
    try:
        with open(file.location, "rb") as stream:  # noqa: PTH123 - text, as all places of a walk
            return _FIGURE_MARK in stream.read(_FIGURE_BYTES)
    except OSError:
        return False


def _origins(stem: str) -> list[str]:
    """Possible names of the image that a mask belongs to."""
    ends = [match.start() for match in re.finditer(_MASK, stem)]
    return [stem[:start] for end in ends for start in range(end, 0, -1) if _MASK_END.fullmatch(stem, start)]


def _leave_out_merged_copies(found: TreeImages) -> None:
    """Pass over copies in ``train_merged`` of images that the fold folders hold too."""
    merged = {id(folder) for folder in found.folders if folder.is_merged}
    if merged:
        in_folds = {file.name for file, _ in found.images if file.folder.fold != NO_FOLD}
        found.leave_out(lambda file, _: MERGED_COPIES if id(file.folder) in merged and file.name in in_folds else "")
