"""The directories of a TIFF file, classic and BigTIFF, and how many pictures they hold."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError

TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

MAX_DIRECTORIES = 64
"""Directories of one file that are looked at."""

_INTEGER_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONAL = 5
_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers of the table itself are written."""

    order: str
    pointer: str
    entry_count: str
    pointer_bytes: int
    entry_count_bytes: int

    @property
    def entry_bytes(self) -> int:
        return 4 + 2 * self.pointer_bytes


_FORMS: Final = {
    magic: _Form(order, *widths)
    for magic, order, widths in zip(
        TIFF_MAGICS, "<><>", (("I", "H", 4, 2), ("I", "H", 4, 2), ("Q", "Q", 8, 8), ("Q", "Q", 8, 8)), strict=True
    )
}


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    position: int


class TiffDirectory:
    """The tags of one picture.

    Of a tag that occurs twice, the first counts, as for libtiff.
    """

    def __init__(self, data: memoryview, order: str, entries: Mapping[int, Sequence[_Entry]]) -> None:
        self._data = data
        self._order = order
        self._entries = entries

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def count(self, tag: int) -> int:
        """Return how many values the tag has; 0 where it is absent."""
        return self._entries[tag][0].count if tag in self._entries else 0

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return the tag's values, numerators and denominators of fractions in turn.

        Empty where the tag is absent or holds something else than integers and fractions.

        Raises
        ------
        ImageError
            If the values stand behind the end of the file.
        """
        if tag not in self._entries:
            return ()
        entry = self._entries[tag][0]
        letter, count = _INTEGER_LETTERS.get(entry.kind), entry.count
        if entry.kind == _RATIONAL:
            letter, count = "I", 2 * entry.count
        return () if letter is None else struct.unpack(f"{self._order}{count}{letter}", self._content(entry))

    def integer(self, tag: int, default: int) -> int:
        """Return the tag's first value; `default` where it is absent.

        Raises
        ------
        ImageError
            As :meth:`integers`.
        """
        return next(iter(self.integers(tag)), default)

    def texts(self, tag: int) -> list[str]:
        """Return the text of each occurrence of the tag.

        Raises
        ------
        ImageError
            If a text stands behind the end of the file.
        """
        return [bytes(self._content(entry)).decode("utf-8", "replace") for entry in self._entries.get(tag, ())]

    def _content(self, entry: _Entry) -> memoryview:
        return _part(self._data, entry.position, entry.count * _VALUE_BYTES[entry.kind])


def read_directories(data: NDArray[np.uint8] | bytes) -> Iterator[TiffDirectory]:
    """Read the directories that follow each other in a file, at most :data:`MAX_DIRECTORIES`; a circle ends them.

    Parameters
    ----------
    data : bytes or ndarray of shape (num_bytes,), uint8
        The whole file; it starts with one of :data:`TIFF_MAGICS`.

    Raises
    ------
    ImageError
        If a directory stands behind the end of the file.
    """
    view = memoryview(data.data if isinstance(data, np.ndarray) else data)
    form = _FORMS[bytes(view[:4])]
    # BigTIFF: the width of pointers and two bytes of zeros come first.
    position = _number(view, form, form.pointer, form.pointer_bytes)
    seen: set[int] = set()
    while position and position not in seen and len(seen) < MAX_DIRECTORIES:
        seen.add(position)
        entries, position = _read_entries(view, form, position)
        yield TiffDirectory(view, form.order, entries)


def _read_entries(view: memoryview, form: _Form, position: int) -> tuple[dict[int, list[_Entry]], int]:
    """Entries by tag, and the position of the next directory; entries of unknown types are left out."""
    count = _number(view, form, form.entry_count, position)
    first = position + form.entry_count_bytes
    table = _part(view, first, count * form.entry_bytes)
    entries: dict[int, list[_Entry]] = {}
    layout = f"{form.order}HH{form.pointer}{form.pointer_bytes}x"
    for number, (tag, kind, num_values) in enumerate(struct.iter_unpack(layout, table)):
        if kind in _VALUE_BYTES:
            place = first + number * form.entry_bytes + 4 + form.pointer_bytes
            if num_values * _VALUE_BYTES[kind] > form.pointer_bytes:
                place = _number(view, form, form.pointer, place)
            entries.setdefault(tag, []).append(_Entry(kind, num_values, place))
    return entries, _number(view, form, form.pointer, first + len(table))


def _number(view: memoryview, form: _Form, letter: str, position: int) -> int:
    part = _part(view, position, struct.calcsize(f"<{letter}"))
    return int(struct.unpack(form.order + letter, part)[0])


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

    Parameters
    ----------
    first
        The first directory.
    others
        Those behind it, as :func:`~leukemia_data.decoding.tiff_directories.read_directories` goes on.

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
    """Pictures that the first directory stands for."""
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
    """Planes of OME-XML that are in this file; each file of a set lists those of all."""
    pixels = _OME_PIXELS.search(text)
    if pixels is None:
        return 1
    sizes = {axis: int(size) for axis, size in _OME_SIZE.findall(pixels[0])}
    planes = -(-sizes.pop("C", 1) // num_channels) * math.prod(sizes.values())
    return planes // max(len(set(_OME_FILE.findall(text))), 1)
