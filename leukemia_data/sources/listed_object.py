"""The object that a table's path string means: below the root's address, and nowhere else."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from leukemia_data.files.file_state import NO_FILE
from leukemia_data.files.spreadsheet import formula_restored
from leukemia_data.sources.listed_file import ListedFile, checked_name
from leukemia_data.sources.spellings import Spellings
from leukemia_data.sources.store_walk import stored_state

if TYPE_CHECKING:
    from leukemia_data.storage.stored_url import StoredUrl


class ObjectFinder:
    """Finds the objects of one table. All below the root are listed once: asking for each would take a request each.

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
        """Find an object, as :meth:`leukemia_data.sources.listed_file.FileFinder.find` finds a file.

        The name as it is written is looked for first; then without ``./`` and ``//``, with slashes for backslashes, and
        without an apostrophe that protects it from spreadsheets. An address below the root is a path, too.

        Raises
        ------
        ValueError
            If the string is empty, holds control characters, leads out of the root, or could mean two objects.
        """
        name = checked_name(text).removeprefix(f"{self._root}/")
        readings = dict.fromkeys((name, formula_restored(name), name.replace("\\", "/")))
        folded = [posixpath.normpath(reading) for reading in readings]
        present = [candidate for candidate in dict.fromkeys((*readings, *folded)) if candidate in self._states]
        if name in present:
            return self._listed(name)
        if len(present) > 1:
            raise ValueError("may mean two files, as a backslash or an apostrophe is a letter or not: rename one")
        if present:
            return self._listed(present[0])
        if "://" in name or folded[-1].startswith(("/", "../")):
            raise ValueError(f"leads out of {self._root} (--root may name a folder that holds all)")
        alike = self._alike(folded[-1])
        if alike is not None:
            self.respelled[name] = alike
            return self._listed(alike)
        return ListedFile(self._root / folded[-1], str(self._root / folded[-1]), NO_FILE)

    def _alike(self, name: str) -> str | None:
        """The only object whose name looks like this one."""
        if self._spellings is None:
            self._spellings = Spellings(self._states)
        return self._spellings.find(name)

    def _listed(self, name: str) -> ListedFile[StoredUrl]:
        url = self._root / name
        return ListedFile(url, str(url), stored_state(self._states[name]))
