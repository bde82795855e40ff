"""The lab's lists of test images: a CSV with the column ``Path`` in, its rows and the files they mean out.

What a submission repeats is the ``Path`` string as it stands in the list. Which file a string means is told by
:attr:`ListedImage.key`, which is the same for ``./test/1.bmp`` in one list and ``test/1.bmp`` in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leukemia_data.files.csv_table import read_csv_table
from leukemia_data.files.table_problems import shown
from leukemia_data.sources.listed_file import FileFinder


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One row of a list.

    Attributes
    ----------
    line
        Where the row starts in the file, counted from 1.
    text
        Its ``Path``, unchanged.
    path
        Where the image lies.
    key
        Which image this is, however its path is written.
    """

    line: int
    text: str
    path: Path
    key: str


def read_submission_list(table: Path, root: Path, *, allow_outside: bool = False) -> list[ListedImage]:
    """Read a list of images, of which each must be there and be listed once.

    Parameters
    ----------
    table
        CSV file with a header that has at least ``Path`` (case does not matter).
    root
        Folder that relative paths start from.
    allow_outside
        Take files outside `root` too.

    Raises
    ------
    SourceError
        If the table cannot be read, or rows are wrong; all kinds of problems are told with their first lines.
    """
    read = read_csv_table(table, ("path",))
    read.require("path")
    finder = FileFinder(root, allow_outside=allow_outside)
    first_line_of: dict[str, int] = {}
    images: list[ListedImage] = []
    column = f"column {read.title('path')}"
    for line, text in zip(read.lines, read.cells("path"), strict=True):
        try:
            file = finder.find(text)
        except ValueError as error:
            read.problems.tell(f"{column} {error}", line, shown(text) if text.strip() else "")
            continue
        first = first_line_of.setdefault(file.key, line)
        if file.is_missing:
            read.problems.tell(f"{column}: there is no such file (paths start from {root})", line, shown(text))
        elif first != line:
            read.problems.tell(f"{column} is an image that was listed before", line, f"{shown(text)}, line {first}")
        else:
            images.append(ListedImage(line, text, file.path, file.key))
    read.problems.raise_any("" if images else "say with --root which folder the paths start from")
    return images
