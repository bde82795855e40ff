"""The file or object that a table's path string denotes: below the root, unless others are allowed."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from leukemia_data.files.atomic import NO_FILE, FileState, state_of
from leukemia_data.files.text import formula_restored
from leukemia_data.records.record import IMAGE_SUFFIXES, ImagePlace, printable_name, stem_of, suffix_of
from leukemia_data.sources.name_words import plain
from leukemia_data.sources.tree_images import stored_state

if TYPE_CHECKING:
    from leukemia_data.stores.object_store import StoredUrl


_TWO_MEANINGS = "may mean two files, as a backslash or an apostrophe is a character or not: rename one"


class Spellings:
    """The names in one folder, searched without regard to case and accents."""

    def __init__(self, names: Iterable[str]) -> None:
        self._alike: defaultdict[str, list[str]] = defaultdict(list)
        self._without_ending: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            self._alike[plain(name)].append(name)
            if suffix_of(name) in IMAGE_SUFFIXES:
                self._without_ending[plain(stem_of(name))].append(name)

    def find(self, name: str) -> str | None:
        """Return the only name that looks like `name`, or the image's if `name` lacks an image's extension.

        Raises
        ------
        ValueError
            If there are several; the message continues after the name of a table's column.
        """
        wanted = plain(name)
        found = self._alike.get(wanted, [])
        if not found and suffix_of(name) not in IMAGE_SUFFIXES:
            found = self._without_ending.get(wanted, [])
        if len(found) > 1:
            raise ValueError(
                f"may mean {len(found)} files, which differ in case, accents or extension: write one as it is"
            )
        return found[0] if found else None


Place = TypeVar("Place", bound=ImagePlace, covariant=True)


@dataclass(frozen=True, slots=True)
class ListedFile(Generic[Place]):
    """A file that a table names.

    Attributes
    ----------
    path
        Its place.
    key
        Identifies the file, however its path is written: ``./test/1.bmp`` and ``test/1.bmp`` have the same. A link to
        a file is a file of its own; links to folders are followed.
    state
        :data:`~leukemia_data.files.atomic.NO_FILE` if there is no such regular file.
    """

    path: Place
    key: str
    state: FileState

    @property
    def is_missing(self) -> bool:
        """Whether there is no such regular file."""
        return not self.state.is_file


class Finder(Protocol):
    """Finds the files of one table: on disks, or in a store.

    ``respelled`` maps path strings to the different spelling of the file that was found.
    """

    respelled: dict[str, str]

    def find(self, text: str) -> ListedFile[ImagePlace]:
        """Return the file of a path string; ValueError as for :meth:`FileFinder.find`."""


class FileFinder:
    """Finds the files of one table on this machine.

    Parameters
    ----------
    root
        Folder that relative paths start from.
    allow_outside
        Accept files outside `root`: absolute paths, paths with ``..``, and links that lead out of it.
    """

    def __init__(self, root: Path, *, allow_outside: bool = False) -> None:
        self._root = str(root)
        self._allow_outside = allow_outside
        self._real_root = _with_end(os.path.realpath(root))
        self._roots = (_with_end(os.path.abspath(root)), self._real_root)  # noqa: PTH100 - links as they are given
        # Tables name thousands of files in a few folders.
        self._folders: dict[str, _Folder] = {}
        self._spellings: dict[str, Spellings] = {}
        self.respelled: dict[str, str] = {}

    def find(self, text: str) -> ListedFile[Path]:
        """Find a file.

        A backslash separates folders on Windows and is a character elsewhere; an apostrophe may protect a path from
        spreadsheets. If no file has the exact name, the other interpretation is tried, then a file whose name differs
        in accents, case or an image's extension only.

        Parameters
        ----------
        text
            A path string of the table, with or without surrounding blanks.

        Raises
        ------
        ValueError
            If the string is empty, holds control characters, leads out of the root, or could mean two files. The
            message continues after the name of the column, and is the same for every such path.
        """
        readings = _readings(_checked_name(text))
        files = [self._describe(reading) for reading in readings]
        present = [file for file in files if not file.is_missing]
        if any(not present[0].path.samefile(other.path) for other in present[1:]):
            raise ValueError(_TWO_MEANINGS)
        return present[0] if present else self._find_alike(files[-1], readings[-1])

    def _find_alike(self, missing: ListedFile[Path], name: str) -> ListedFile[Path]:
        """A file with a similar name, or the missing file itself."""
        here, parts = self._root, []
        for part in name.split("/"):
            is_there = part in ("", ".", "..") or os.path.lexists(f"{here}{os.sep}{part}")
            found = part if is_there else self._alike(here, part)
            if found is None:
                return missing
            parts.append(found)
            here = _joined(here, found)
        spelled = "/".join(parts)
        if spelled == name:
            return missing
        file = self._describe(spelled)
        if file.is_missing:
            return missing
        self.respelled[name] = spelled
        return file

    def _alike(self, folder: str, name: str) -> str | None:
        if folder not in self._spellings:
            names: list[str] = []
            with suppress(OSError, ValueError):
                names = [entry.name for entry in os.scandir(folder)]
            self._spellings[folder] = Spellings(names)
        return self._spellings[folder].find(name)

    def _describe(self, name: str) -> ListedFile[Path]:
        folder_name, file_name = os.path.split(name)
        folder = self._folders.get(folder_name)
        if folder is None:
            folder = self._folders[folder_name] = self._open(folder_name)
        location = f"{folder.path}{file_name}"
        state, is_link = _state(location) if folder.is_allowed else (NO_FILE, False)
        is_below = not is_link or self._allow_outside or _is_below(os.path.realpath(location), (self._real_root,))
        if not (folder.is_allowed and is_below):
            raise ValueError(
                f"leads out of {self._root} (--root may name a folder that holds all, --allow-outside takes them)"
            )
        return ListedFile(Path(location), f"{folder.real_path}{os.path.normcase(file_name)}", state)

    def _open(self, name: str) -> _Folder:
        """The folder that a table names, which may not exist."""
        path = _joined(self._root, name)
        if not self._allow_outside and (os.path.isabs(name) or os.path.splitdrive(name)[0]):  # noqa: PTH117
            # Does not access network shares.
            absolute = _joined(os.path.abspath(path), "")  # noqa: PTH100 - does not touch the disk
            if not _is_below(absolute, self._roots):
                return _Folder(path, absolute, is_allowed=False)
        real_path = _with_end(os.path.realpath(path))
        return _Folder(path, real_path, is_allowed=self._allow_outside or _is_below(real_path, (self._real_root,)))


def _checked_name(text: str) -> str:
    """A table's path string without surrounding blanks; ValueError if nothing is left, or it has control characters."""
    name = text.strip()
    if not name:
        raise ValueError("is empty")
    if printable_name(name) != name:
        raise ValueError("holds a line break or another control character: look for a quote, or rename the file")
    return name


def _readings(name: str) -> list[str]:
    """The name as it is written, without an apostrophe of spreadsheets, and with slashes for backslashes."""
    return list(dict.fromkeys((name, formula_restored(name), name.replace("\\", "/"))))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder as named and with all links followed, both with a separator at the end."""

    path: str
    real_path: str
    is_allowed: bool


def _joined(folder: str, name: str) -> str:
    """A path with a separator at its end."""
    return os.path.join(folder, name, "")  # noqa: PTH118 - Path takes the separator away


def _with_end(folder: str) -> str:
    """The folder with a separator at its end, in the case used for comparing paths."""
    return os.path.normcase(_joined(folder, ""))


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return os.path.normcase(path).startswith(folders)


def _state(location: str) -> tuple[FileState, bool]:
    """The state of a file, links followed, and whether it is a link."""
    is_link = False
    try:
        status = os.lstat(location)
        is_link = stat.S_ISLNK(status.st_mode)
        if is_link:
            status = os.stat(location)  # noqa: PTH116 - follows the link that lstat has found
    except (OSError, ValueError):
        return NO_FILE, is_link
    return state_of(status) if stat.S_ISREG(status.st_mode) else NO_FILE, is_link


class ObjectFinder:
    """Finds the objects of one table; all below the root are listed once, which avoids a request for each.

    Parameters
    ----------
    root
        Address that relative paths start from.
    """

    def __init__(self, root: StoredUrl) -> None:
        self._root = root
        self._states = dict(root.walk())
        self._spellings: Spellings | None = None
        self.respelled: dict[str, str] = {}

    def find(self, text: str) -> ListedFile[StoredUrl]:
        """Find an object, as :meth:`FileFinder.find` finds a file.

        The exact name is tried first; then names without ``./`` and ``//``, with slashes for backslashes, and without
        an apostrophe that protects it from spreadsheets. An address below the root is a path, too.

        Raises
        ------
        ValueError
            If the string is empty, holds control characters, leads out of the root, or could mean two objects.
        """
        name = _checked_name(text).removeprefix(f"{self._root}/")
        readings = _readings(name)
        folded = [posixpath.normpath(reading) for reading in readings]
        present = [candidate for candidate in dict.fromkeys((*readings, *folded)) if candidate in self._states]
        if len(present) > 1 and name not in present:
            raise ValueError(_TWO_MEANINGS)
        if present:
            return self._listed(name if name in present else present[0])
        if "://" in name or folded[-1].startswith(("/", "../")):
            raise ValueError(f"leads out of {self._root} (--root may name a folder that holds all)")
        if self._spellings is None:
            self._spellings = Spellings(self._states)
        alike = self._spellings.find(folded[-1])
        if alike is not None:
            self.respelled[name] = alike
            return self._listed(alike)
        return ListedFile(self._root / folded[-1], str(self._root / folded[-1]), NO_FILE)

    def _listed(self, name: str) -> ListedFile[StoredUrl]:
        url = self._root / name
        return ListedFile(url, str(url), stored_state(self._states[name]))
