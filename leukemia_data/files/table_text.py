"""The text of a table that a user wrote: UTF-8, or UTF-16 with its mark; anything else is refused with its lines."""

from __future__ import annotations

import codecs
import re
import stat
from pathlib import Path

from leukemia_data.errors import SourceError
from leukemia_data.files.table_problems import TableProblems

MAX_TABLE_BYTES = 1 << 30
"""A table of ten million images has 0.6 GB; what is larger is no table of images, and would fill the memory."""

_UTF8_CURE = "save the table as UTF-8 (spreadsheets call it CSV UTF-8)"
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_table_text(path: Path) -> str:
    """Text of a CSV file, as :func:`table_text` reads it.

    Raises
    ------
    SourceError
        If the file cannot be read, is too large, or is no such text.
    """
    return table_text(path, _read_bytes(path))


def table_text(path: object, data: bytes) -> str:
    """Text of a table, without its mark (BOM) and with its line ends as they are.

    Parameters
    ----------
    path
        Where it was read, for messages.
    data
        All of its bytes.

    Raises
    ------
    SourceError
        If it is a workbook, or no UTF-8 or UTF-16 text; lines are told.
    """
    if data.startswith(b"PK\x03\x04"):
        raise SourceError(f"{path} is a workbook or an archive, not a CSV file: {_UTF8_CURE}")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise SourceError(f"{path} is UTF-32: {_UTF8_CURE}")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = _utf16_text(path, data)
    else:
        text = _utf8_text(path, data.removeprefix(codecs.BOM_UTF8))
    if "\0" in text:
        _refuse_nul(path, text)
    return text


def _read_bytes(path: Path) -> bytes:
    try:
        # A pipe would be waited for.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{path} is no regular file")
        with path.open("rb") as file:
            # Room for as much as is asked for is taken beforehand.
            data = file.read(min(MAX_TABLE_BYTES, status.st_size) + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"{path} cannot be read: {reason}") from error
    if len(data) > MAX_TABLE_BYTES:
        raise SourceError(f"{path} is larger than {MAX_TABLE_BYTES:,} bytes: split the table")
    return data


def _utf16_text(path: object, data: bytes) -> str:
    try:
        return data.decode("utf-16")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is damaged UTF-16 at byte {error.start:,}: {_UTF8_CURE}") from error


def _utf8_text(path: object, data: bytes) -> str:
    if b"\0" in data:
        _refuse_nul(path, data.decode("utf-8", errors="replace"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        problems = TableProblems(path)
        for line, content in enumerate(data.splitlines(), start=1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = content[error.start]
                problems.tell("not UTF-8", line, f"byte {error.start + 1} of the line is 0x{byte:02x}")
        problems.raise_any(_UTF8_CURE)
        raise


def _refuse_nul(path: object, text: str) -> None:
    problems = TableProblems(path)
    for line, content in enumerate(_LINE_END.split(text), start=1):
        if "\0" in content:
            problems.tell("a NUL byte", line, f"at character {content.index(chr(0)) + 1}")
    problems.raise_any(f"the file is damaged, no text, or UTF-16 without its mark: {_UTF8_CURE}")
