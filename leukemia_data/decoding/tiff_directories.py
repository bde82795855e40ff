"""The directories of a TIFF file, classic and BigTIFF, and how many pictures they hold."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError

MAX_DIRECTORIES = 64
"""Directories of one file that are read."""

_INTEGER_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONAL = 5
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class _Form(NamedTuple):
    """Byte order, and formats of pointers and of a directory's count of entries."""

    order: str
    pointer: str
    entry_count: str


_FORMS = {
    b"II*\x00": _Form("<", "I", "H"),
    b"MM\x00*": _Form(">", "I", "H"),
    b"II+\x00": _Form("<", "Q", "Q"),
    b"MM\x00+": _Form(">", "Q", "Q"),
}
TIFF_MAGICS = tuple(_FORMS)


class _Entry(NamedTuple):
    kind: int
    num_values: int
    position: int


class TiffDirectory:
    """The tags of one picture; of a tag that occurs twice, the first counts, as for libtiff.

    Methods raise ImageError if values are beyond the end of the file.
    """

    def __init__(self, data: memoryview, order: str, entries: Mapping[int, Sequence[_Entry]]) -> None:
        self._data = data
        self._order = order
        self._entries = entries

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def count(self, tag: int) -> int:
        """Return the number of the tag's values; 0 if it is absent."""
        return self._entries[tag][0].num_values if tag in self._entries else 0

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return the tag's integers, or numerators and denominators in turn; empty if it is absent or has others."""
        if tag not in self._entries:
            return ()
        entry = self._entries[tag][0]
        letter, count = _INTEGER_LETTERS.get(entry.kind), entry.num_values
        if entry.kind == _RATIONAL:
            letter, count = "I", 2 * entry.num_values
        return () if letter is None else struct.unpack(f"{self._order}{count}{letter}", self._content(entry))

    def integer(self, tag: int, default: int) -> int:
        """Return the tag's first integer; `default` if there is none."""
        return next(iter(self.integers(tag)), default)

    def texts(self, tag: int) -> list[str]:
        """Return the text of each occurrence of the tag."""
        return [bytes(self._content(entry)).decode("utf-8", "replace") for entry in self._entries.get(tag, ())]

    def _content(self, entry: _Entry) -> memoryview:
        return _part(self._data, entry.position, entry.num_values * _VALUE_BYTES[entry.kind])


def read_directories(data: NDArray[np.uint8] | bytes) -> Iterator[TiffDirectory]:
    """Read the directories of a file in turn, at most :data:`MAX_DIRECTORIES`; a circle ends them.

    Parameters
    ----------
    data : bytes or ndarray of shape (num_bytes,), uint8
        The whole file; it starts with one of :data:`TIFF_MAGICS`.

    Raises
    ------
    ImageError
        If a directory is beyond the end of the file.
    """
    view = memoryview(data.data if isinstance(data, np.ndarray) else data)
    form = _FORMS[bytes(view[:4])]
    # BigTIFF: the width of pointers and two bytes of zeros come first.
    position = _number(view, form.order + form.pointer, struct.calcsize(f"<{form.pointer}"))
    seen: set[int] = set()
    while position and position not in seen and len(seen) < MAX_DIRECTORIES:
        seen.add(position)
        entries, position = _read_entries(view, form, position)
        yield TiffDirectory(view, form.order, entries)


def _read_entries(view: memoryview, form: _Form, position: int) -> tuple[dict[int, list[_Entry]], int]:
    """Entries by tag, and the position of the next directory; entries of unknown types are left out."""
    pointer_bytes, first = struct.calcsize(f"<{form.pointer}"), position + struct.calcsize(f"<{form.entry_count}")
    layout = f"{form.order}HH{form.pointer}{pointer_bytes}x"
    entry_bytes = struct.calcsize(layout)
    table = _part(view, first, _number(view, form.order + form.entry_count, position) * entry_bytes)
    entries: dict[int, list[_Entry]] = {}
    for number, (tag, kind, num_values) in enumerate(struct.iter_unpack(layout, table)):
        if kind in _VALUE_BYTES:
            place = first + (number + 1) * entry_bytes - pointer_bytes
            if num_values * _VALUE_BYTES[kind] > pointer_bytes:
                place = _number(view, form.order + form.pointer, place)
            entries.setdefault(tag, []).append(_Entry(kind, num_values, place))
    return entries, _number(view, form.order + form.pointer, first + len(table))


def _number(view: memoryview, layout: str, position: int) -> int:
    return int(struct.unpack(layout, _part(view, position, struct.calcsize(layout)))[0])


def _part(view: memoryview, position: int, num_bytes: int) -> memoryview:
    if position + num_bytes > len(view):
        raise ImageError(
            f"cannot be decoded: truncated or damaged: its table of tags needs more than its {len(view)} bytes"
        )
    return view[position : position + num_bytes]


_SUBFILE_KIND, _OLD_SUBFILE_KIND = 254, 255
_THUMBNAIL_OR_MASK = 1 | 4
_OLD_THUMBNAIL = 2
_WIDTH, _HEIGHT, _DESCRIPTION, _CHANNELS = 256, 257, 270, 277
_SUB_DIRECTORIES = 330
_DEPTH = 32997
_METAMORPH_PLANES = 33629

# https://github.com/imagej/ImageJ/blob/master/ij/io/FileInfo.java; SCIFIO writes the same lines.
_IMAGEJ = re.compile(r"\s*(?:ImageJ|SCIFIO)=")
_IMAGEJ_COUNT = re.compile(r"^(images|channels|slices|frames)=(\d{1,18})\s*$", re.MULTILINE)
# https://docs.openmicroscopy.org/ome-model: the sizes of Pixels, and the files that hold its planes.
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_OME_SIZE = re.compile(r"""\bSize([CTZ])\s*=\s*["'](\d{1,18})["']""")
_OME_FILE = re.compile(r"""\bFileName\s*=\s*["']([^"']*)["']""")
# What tifffile writes: {"shape": [3, 40, 40], ...}, earlier shape=(3, 40, 40).
_SHAPE = re.compile(r'\s*(?:\{\s*"shape"\s*:\s*\[|shape=\()([\d,\s]*)[])]')


def check_single_picture(first: TiffDirectory, others: Iterator[TiffDirectory]) -> None:
    """Refuse a file of several pictures; thumbnails, smaller copies and masks of the first may follow it.

    Raises
    ------
    ImageError
        If there is a second picture, if the first is a smaller copy of another, or if a directory is truncated.
    """
    if _is_copy_or_mask(first) and _SUB_DIRECTORIES in first:
        raise ImageError("its first picture is a thumbnail or mask of another: save the one that is meant by itself")
    if _num_pictures(first) > 1 or not all(_is_copy_or_mask(other) for other in others):
        raise ImageError("several pages: save the one that is meant as an image of its own")


def _is_copy_or_mask(tags: TiffDirectory) -> bool:
    kind = tags.integer(_SUBFILE_KIND, 0)
    return bool(kind & _THUMBNAIL_OR_MASK) or tags.integer(_OLD_SUBFILE_KIND, 0) == _OLD_THUMBNAIL


def _num_pictures(tags: TiffDirectory) -> int:
    """Number of pictures in the first directory."""
    described = (_described(text, tags) for text in tags.texts(_DESCRIPTION))
    return max(tags.integer(_DEPTH, 1), tags.count(_METAMORPH_PLANES), *described, 1)


def _described(text: str, tags: TiffDirectory) -> int:
    num_channels = max(tags.integer(_CHANNELS, 1), 1)
    if _IMAGEJ.match(text):
        return _of_imagej(text)
    if shape := _SHAPE.match(text):
        sizes = [int(size) for size in re.findall(r"\d{1,18}", shape[1])]
        pixels = tags.integer(_WIDTH, 0) * tags.integer(_HEIGHT, 0) * num_channels
        return math.prod(sizes) // max(pixels, 1) if sizes else 1
    return _of_ome(text, num_channels)


def _of_imagej(text: str) -> int:
    counts = {name: int(count) for name, count in _IMAGEJ_COUNT.findall(text.replace("\r", "\n"))}
    images = counts.pop("images", 1)
    return max(images, math.prod(counts.values()))


def _of_ome(text: str, num_channels: int) -> int:
    """Number of planes of OME-XML in this file; each file of a set lists those of all."""
    pixels = _OME_PIXELS.search(text)
    if pixels is None:
        return 1
    sizes = {axis: int(size) for axis, size in _OME_SIZE.findall(pixels[0])}
    planes = -(-sizes.pop("C", 1) // num_channels) * math.prod(sizes.values())
    return planes // max(len(set(_OME_FILE.findall(text))), 1)
