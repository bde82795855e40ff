"""TIFF files written byte by byte: classic and BigTIFF, in both byte orders."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

Values = int | bytes | Sequence[int]
LETTERS = {1: "B", 3: "H", 4: "I", 5: "I", 7: "B", 16: "Q"}


def tiff(
    *pages: Mapping[int, Values],
    pixels: bytes,
    order: str = "<",
    big: bool = False,
    kinds: Mapping[int, int] | None = None,
) -> bytes:
    """A file of `pages`, tag -> values, whose `pixels` stand at :func:`pixels_start`.

    Values of bytes are ASCII or what `kinds` says; integers are SHORT or LONG (LONG8 above 32 bits).
    """
    pointer, entry_count, head = ("Q", "Q", 16) if big else ("I", "H", 8)
    width = struct.calcsize(f"<{pointer}")
    room_start = pixels_start(big) + len(pixels)
    room, positions = b"", []
    tables = []
    for page in pages:
        table = struct.pack(order + entry_count, len(page))
        for tag, values in sorted(page.items()):
            kind, content = _content(values, order, (kinds or {}).get(tag))
            count = len(content) // (8 if kind == 5 else struct.calcsize(f"<{LETTERS.get(kind, 'B')}"))
            place = content.ljust(width, b"\0")
            if len(content) > width:
                place = struct.pack(order + pointer, room_start + len(room))
                room += content
            table += struct.pack(f"{order}HH{pointer}", tag, kind, count) + place
        tables.append(table)
    start = room_start + len(room)
    for table in tables:
        positions.append(start)
        start += len(table) + width
    ends = [struct.pack(order + pointer, position) for position in [*positions[1:], 0]]
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if big else 42)
    header = magic + (struct.pack(f"{order}HH", 8, 0) if big else b"") + struct.pack(order + pointer, positions[0])
    body = b"".join(table + end for table, end in zip(tables, ends, strict=True))
    return header.ljust(head, b"\0").ljust(pixels_start(big), b"\0") + pixels + room + body


def pixels_start(big: bool = False) -> int:
    """Where the pixels stand: right behind the header, as small writers put them."""
    return 16 if big else 8


def _content(values: Values, order: str, kind: int | None) -> tuple[int, bytes]:
    if isinstance(values, bytes):
        return kind or 2, values
    numbers = [values] if isinstance(values, int) else list(values)
    kind = kind or (3 if max(numbers) < 2**16 else 4 if max(numbers) < 2**32 else 16)
    return kind, struct.pack(f"{order}{len(numbers)}{LETTERS[kind]}", *numbers)


def page_of(image: np.ndarray, *, big: bool = False, **more: Values) -> dict[int, Values]:
    """Tags of an uncompressed picture of shape (height, width) or (height, width, channels); `more` as ``t<tag>``."""
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    tags: dict[int, Values] = {
        256: width,
        257: height,
        258: [8 * image.itemsize] * channels,
        259: 1,
        262: 2 if channels >= 3 else 1,
        273: pixels_start(big),
        277: channels,
        278: height,
        279: image.nbytes,
    }
    return tags | {int(name[1:]): values for name, values in more.items()}


def without(page: Mapping[int, Values], *tags: int) -> dict[int, Values]:
    return {tag: values for tag, values in page.items() if tag not in tags}
