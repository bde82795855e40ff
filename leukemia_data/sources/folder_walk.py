"""Everything below a folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from leukemia_data.errors import SourceError
from leukemia_data.files.file_state import NO_FILE, state_of
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, printable_name
from leukemia_data.sources.tree_file import TreeFile, TreeFolder, is_passed_over, suffix_of


def walk_folder(root: Path, names: tuple[str, ...] = (), above: frozenset[Path] = frozenset()) -> Iterator[TreeFile]:
    """Everything below a folder that is no folder; dot files (``._x`` of macOS too) and dot folders are passed over.

    Links are followed, but not back into a folder `above`. A folder that bears an image's name and holds none counts
    as an image that is no file.
    """
    here = root.resolve()
    if here in above:
        return
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"cannot list {printable_name(str(root))}: {error.strerror}") from error
    folder = TreeFolder(names)
    for entry in entries:
        if is_passed_over(entry.name):
            continue
        if not _is_folder(entry):
            yield _describe_entry(folder, entry)
            continue
        below = walk_folder(Path(entry.path), (*names, entry.name), above | {here})
        if suffix_of(entry.name) in IMAGE_SUFFIXES:
            files = list(below)
            yield from files
            if not any(suffix_of(file.name) in IMAGE_SUFFIXES for file in files):
                yield TreeFile(folder, entry.name, entry.path, NO_FILE)
        else:
            yield from below


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link in a circle, or into a folder that may not be entered.
        return False


def _describe_entry(folder: TreeFolder, entry: os.DirEntry[str]) -> TreeFile:
    """A file with its state; without one where it is no regular file, or gone by now."""
    try:
        if entry.is_file():
            return TreeFile(folder, entry.name, entry.path, state_of(entry.stat()))
    except OSError:
        pass
    return TreeFile(folder, entry.name, entry.path, NO_FILE)
