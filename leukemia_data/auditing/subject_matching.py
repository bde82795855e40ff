"""Look files up by content, and assign a subject to each row of a lab's tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from leukemia_data.auditing.audit_pairs import subject_order
from leukemia_data.auditing.reference_index import KnownImage, LabTable, ReferenceIndex, linked_sets
from leukemia_data.decoding.decode import decode_rgb, frame_digest, map_in_threads, read_file
from leukemia_data.errors import ImageError
from leukemia_data.records.record import ImagePlace

Status = Literal["bytes", "pixels", "no subject", "unknown", "unusable"]
"""Found by equal bytes or pixels; found without a subject in the reference; not found; unreadable."""
JOINED_BY = "+"
CANDIDATES_BY = "|"


@dataclass(frozen=True, slots=True)
class FileMatch:
    """Result for one file: content key (empty if unreadable), status, and the known images."""

    key: bytes
    status: Status
    known: tuple[KnownImage, ...] = ()
    problem: str = ""

    @property
    def candidates(self) -> tuple[str, ...]:
        """The subjects of the known images, in natural order."""
        return tuple(sorted({image.subject for image in self.known if image.subject}, key=subject_order))


@dataclass(frozen=True, slots=True)
class RecoveredRow:
    """One row of a table with the result for its file.

    ``label_denied`` is the reference's class if the table has another; empty otherwise.
    """

    table: int
    line: int
    path: str
    class_name: str
    split: str
    match: FileMatch
    subject: str
    label_denied: str

    @property
    def candidates_text(self) -> str:
        """The candidates of an ambiguous row, such as ``20|21``; empty for other rows."""
        return CANDIDATES_BY.join(self.match.candidates) if len(self.match.candidates) > 1 else ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """All rows in the order of the tables, and linked subjects that these tables do not tie."""

    rows: tuple[RecoveredRow, ...]
    linked: tuple[tuple[str, ...], ...]
    untied: tuple[tuple[str, ...], ...]

    def of_table(self, number: int) -> list[RecoveredRow]:
        """Return the rows of one table, in order."""
        return [row for row in self.rows if row.table == number]


def match_files(paths: Sequence[ImagePlace], index: ReferenceIndex, *, num_threads: int = 1) -> Iterator[FileMatch]:
    """Yield the match of each file by content, in order."""
    yield from map_in_threads(partial(_match, index), paths, num_threads)


def assign_subjects(
    tables: Sequence[LabTable],
    files: Mapping[tuple[int, str], ImagePlace],
    matches: Mapping[ImagePlace, FileMatch],
    linked: Sequence[tuple[str, ...]],
    *,
    join_linked: bool = False,
) -> Recovery:
    """Assign a subject to every row.

    Parameters
    ----------
    files
        (index of the table, ``Path`` string) -> file.
    matches
        File -> its match.
    linked
        From :meth:`ReferenceIndex.linked_subjects`.
    join_linked
        Write linked subjects as one, named like ``20+21``.
    """
    chosen = _choose_subjects(tables, files, matches)
    joined = {name: JOINED_BY.join(names) for names in linked for name in names} if join_linked else {}
    rows = []
    for number, table in enumerate(tables):
        cells = zip(table.lines, table.image_paths, table.class_names, table.splits, strict=True)
        for line, path, class_name, split in cells:
            file = files[number, path]
            subject = chosen.get(file, "")
            denied = _denied_label(class_name, matches[file])
            row = RecoveredRow(
                number, line, path, class_name, split, matches[file], joined.get(subject, subject), denied
            )
            rows.append(row)
    return Recovery(tuple(rows), tuple(linked), () if join_linked else _untied(rows, linked))


def _match(index: ReferenceIndex, path: ImagePlace) -> FileMatch:
    try:
        data = read_file(path).data
        key = b""
        if index.by_bytes:
            key = hashlib.sha256(data.data).digest()
            if key in index.by_bytes:
                return _found(key, "bytes", index.by_bytes[key])
        if index.by_pixels:
            key = frame_digest(decode_rgb(data))
            if key in index.by_pixels:
                return _found(key, "pixels", index.by_pixels[key])
    except ImageError as error:
        return FileMatch(b"", "unusable", problem=str(error))
    return FileMatch(key, "unknown")


def _found(key: bytes, status: Status, known: Sequence[KnownImage]) -> FileMatch:
    match = FileMatch(key, status, tuple(known))
    return match if match.candidates else FileMatch(key, "no subject", tuple(known))


def _choose_subjects(
    tables: Sequence[LabTable], files: Mapping[tuple[int, str], ImagePlace], matches: Mapping[ImagePlace, FileMatch]
) -> dict[ImagePlace, str]:
    """Subject of each file: its only candidate, or round-robin over the copies, in row order."""
    in_order = dict.fromkeys(files[number, path] for number, table in enumerate(tables) for path in table.image_paths)
    num_copies: dict[bytes, int] = {}
    chosen: dict[ImagePlace, str] = {}
    for file in in_order:
        match = matches[file]
        if match.candidates:
            copy = num_copies.get(match.key, 0)
            num_copies[match.key] = copy + 1
            chosen[file] = match.candidates[copy % len(match.candidates)]
    return chosen


def _denied_label(class_name: str, match: FileMatch) -> str:
    known = sorted({image.class_name for image in match.known if image.class_name})
    return CANDIDATES_BY.join(known) if class_name and known and class_name.lower() not in known else ""


def _untied(rows: Sequence[RecoveredRow], linked: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Linked subjects of which several occur in these tables, without identical images that tie them."""
    present = {row.subject for row in rows if row.subject}
    owners: dict[bytes, set[str]] = {}
    for row in rows:
        if row.subject:
            owners.setdefault(row.match.key, set()).add(row.subject)
    tied = {name: names for names in linked_sets(owners.values()) for name in names}
    untied = []
    for names in linked:
        here = tuple(name for name in names if name in present)
        if len({tied.get(name, (name,)) for name in here}) > 1:
            untied.append(here)
    return tuple(untied)
