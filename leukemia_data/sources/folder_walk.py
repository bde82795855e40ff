"""Everything below a folder of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import SourceError
from leukemia_data.files.file_state import NO_FILE, state_of
from leukemia_data.sources.found_image import IMAGE_SUFFIXES, printable_name, suffix_of
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.tree_file import EXCLUDED, OUTPUT, PassedOver, TreeFile, is_output, why_passed_over
from leukemia_data.sources.tree_folders import TreeFolder


@dataclass(slots=True)
class _OpenFolder:
    """A folder on the way from the root to where the walk is."""

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
    """Everything below a folder that is no folder, in the order of the names.

    Links are followed, but not back into a folder above. A folder that bears an image's name and holds none counts
    as an image that is no file.

    Parameters
    ----------
    root
        The folder.
    passed_over
        Is told what is not looked at: hidden files, folders of systems, what ltrain and ldata wrote, and what the
        options exclude.
    given_names
        Names before all others in ids, which tell several sources apart.

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
            if not here.has_image:
                here.has_image = suffix_of(entry.name) in IMAGE_SUFFIXES
            yield _describe_entry(here.folder, entry)
        else:
            below = _open(entry.path, (*here.names, entry.name), len(given_names))
            if below.is_output:
                passed_over.add(OUTPUT, below.folder.id_prefix)
            elif below.key not in keys:
                way.append(below)
                keys.add(below.key)


def _keys_above(root: Path) -> Iterator[tuple[int, int]]:
    """What tells the folders above the root: a link to one of them would bring everything again."""
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
    """Tell the folder above of its images; one that bears an image's name and holds none stands for one."""
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
        entries = sorted(os.scandir(place), key=_name_of)
    except OSError as error:
        raise SourceError(f"cannot list {printable_name(place)}: {error.strerror}") from error
    folder, is_own = TreeFolder.of(names, num_given), is_output(entry.name for entry in entries)
    return _OpenFolder(place, names, folder, (status.st_dev, status.st_ino), iter(entries), is_own)


def _name_of(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link in a circle, or into a folder that may not be entered.
        return False


def _describe_entry(folder: TreeFolder, entry: os.DirEntry[str]) -> TreeFile:
    """A file with its state; without one where it is no regular file, or gone by now."""
    with suppress(OSError):
        status = entry.stat()
        if stat.S_ISREG(status.st_mode):
            return TreeFile(folder, entry.name, entry.path, state_of(status))
    return TreeFile(folder, entry.name, entry.path, NO_FILE)
