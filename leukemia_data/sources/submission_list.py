"""The lab's lists of test images: a CSV with the column ``Path`` in, its rows and the files they mean out.

What a submission repeats is the ``Path`` string as it stands in the list. Which file a string means is told by
:attr:`ListedImage.key`, which is the same for ``./test/1.bmp`` in one list and ``test/1.bmp`` in another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.errors import SourceError, listed
from leukemia_data.sources.source_table import read_rows

_MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One row of a list.

    Attributes
    ----------
    line
        Where the row ends in the file, counted from 1.
    text
        Its ``Path``, unchanged.
    path
        Where the image lies.
    """

    line: int
    text: str
    path: Path

    @property
    def key(self) -> str:
        """Which image this is, however its path is written."""
        return os.path.normcase(os.path.abspath(self.path))  # noqa: PTH100 - links are files of their own here


def read_submission_list(table: Path, root: Path) -> list[ListedImage]:
    """Read a list of images, of which each must be there and be listed once.

    Parameters
    ----------
    table
        CSV file with a header that has at least ``Path`` (case does not matter).
    root
        Folder that relative paths start from.

    Raises
    ------
    SourceError
        If the table cannot be read, or rows are wrong; the first of them are told with their lines.
    """
    images: list[ListedImage] = []
    problems: list[str] = []
    first_line_of: dict[str, int] = {}
    for line, row in read_rows(table):
        text = row.get("path") or ""
        try:
            image = ListedImage(line, text, _located(text, root))
            first = first_line_of.setdefault(image.key, line)
            if first != line:
                raise ValueError(f"{text} is the image of line {first} again")
        except ValueError as error:
            problems.append(f"line {line}: {error}")
        else:
            images.append(image)
    if problems:
        raise SourceError(
            f"{table}: {_counted(problems)}: {listed(problems, most=_MAX_LISTED, separator='; ')}"
            + ("" if images else "; say with --root which folder the paths start from")
        )
    return images


def _counted(problems: Sequence[str]) -> str:
    return "a row is wrong" if len(problems) == 1 else f"{len(problems)} rows are wrong"


def _located(text: str, root: Path) -> Path:
    """The file that a path string means.

    A backslash separates folders on Windows and is a letter elsewhere; lists are written on both. It is taken for a
    separator where there is no file with that letter in its name.

    Raises
    ------
    ValueError
        If the string is empty, means no file, or could mean two.
    """
    if not text.strip():
        raise ValueError("Path is empty")
    readings = dict.fromkeys(root / form for form in (text.strip(), text.strip().replace("\\", "/")))
    found = [path for path in readings if _is_file(path)]
    if not found:
        raise ValueError(f"{text}: there is no file {next(reversed(readings))}")
    if len(found) > 1 and not found[0].samefile(found[1]):
        raise ValueError(f"{text} may mean {found[0]} or {found[1]}: rename one of them")
    return found[0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
