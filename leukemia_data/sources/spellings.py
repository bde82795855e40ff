"""Names that look alike: a table's name of a file, and the file's own.

A table may write an accent composed (NFC) where a Mac's archive has it in two characters (NFD), another case, or no
ending. Where there is no file of the very name, one that looks the same is meant, if there is one only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from leukemia_data.sources.found_image import IMAGE_SUFFIXES, stem_of, suffix_of
from leukemia_data.sources.name_words import plain


class Spellings:
    """The names in one folder, by how they look.

    Parameters
    ----------
    names
        Names of its files and folders, as they are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._alike: defaultdict[str, list[str]] = defaultdict(list)
        self._without_ending: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            self._alike[plain(name)].append(name)
            if suffix_of(name) in IMAGE_SUFFIXES:
                self._without_ending[plain(stem_of(name))].append(name)

    def find(self, name: str) -> str | None:
        """The only name that looks like `name`; an image's, where `name` has no image's ending.

        Raises
        ------
        ValueError
            If there are several; the message goes on after the name of a table's column.
        """
        wanted = plain(name)
        found = self._alike.get(wanted, [])
        if not found and suffix_of(name) not in IMAGE_SUFFIXES:
            found = self._without_ending.get(wanted, [])
        if len(found) > 1:
            raise ValueError(
                f"may mean {len(found)} files, which differ in case, accents or ending: write one as it is"
            )
        return found[0] if found else None
