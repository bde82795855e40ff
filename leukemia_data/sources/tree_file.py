"""Files as they lie in a tree of folders, on a disk or in a store; and what the names of their folders say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.files.file_state import FileState
from leukemia_data.samples.record import NO_FOLD, ImagePlace
from leukemia_data.sources.found_image import printable_name, split_word

if TYPE_CHECKING:
    from leukemia_data.storage.stored_url import StoredUrl

_FOLD = re.compile(r"fold[_-]?(\d{1,4})", re.IGNORECASE)
_PRELIMINARY = re.compile(r"prelim|^phase2$", re.IGNORECASE)
_FINAL = re.compile(r"final_phase|test_final|^phase3$", re.IGNORECASE)
MERGED_FOLDER = "train_merged"


class TreeFolder:
    """A folder below the root: what its names say, found out once for all its files."""

    def __init__(self, found_names: tuple[str, ...]) -> None:
        names = tuple(map(printable_name, found_names))
        self.names = names
        self.id_prefix = "".join(f"{name}/" for name in names)
        folds = [match for name in names if (match := _FOLD.fullmatch(name))]
        self.fold = int(folds[-1].group(1)) if folds else NO_FOLD
        self.split = next((word for word in map(split_word, reversed(names)) if word), "")
        self.is_preliminary = any(_PRELIMINARY.search(name) for name in names)
        self.is_final = any(_FINAL.search(name) for name in names)
        self.is_merged = any(MERGED_FOLDER in name.lower() for name in names)

    @lru_cache(maxsize=4)  # noqa: B019 - folders live as long as one listing
    def class_and_subject(self, wrapper: int) -> tuple[str | None, str]:
        """The first name that is no split and no fold, and what follows it; `wrapper` names hold everything."""
        names = [name for name in self.names[wrapper:] if split_word(name) is None and not _FOLD.fullmatch(name)]
        return (names[0], "/".join(names[1:])) if names else (None, "")


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file below the root; ``location``, its path as a text or its address, becomes ``path`` where it is used."""

    folder: TreeFolder
    name: str
    location: str | StoredUrl
    state: FileState

    @property
    def path(self) -> ImagePlace:
        """Where it lies."""
        # A Path for each file takes as long as the walk, and not all are used.
        return Path(self.location) if isinstance(self.location, str) else self.location

    @property
    def suffix(self) -> str:
        """End of the name from the last dot on, in lower case."""
        return suffix_of(self.name)

    @property
    def record_id(self) -> str:
        """Names of the folders below the root and its own, with ``/`` between."""
        return self.folder.id_prefix + printable_name(self.name)

    @property
    def is_regular(self) -> bool:
        """Whether it can be read like a file."""
        return self.state.is_file


def suffix_of(name: str) -> str:
    """End of a file's name from its last dot on, in lower case."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each file takes as long as the walk


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name holds no data: dot files (``._x`` of macOS too), what archives add."""
    return name.startswith(".") or name == "__MACOSX"
