"""Frames of a source by class: their sizes, modes and ground, from a sample that depends on nothing but the listing.

Sizes and modes come from headers; the ground, from a few decoded frames. A sample of each class is enough to see that
one class comes from another camera than the other, which a network would learn instead of the cells.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from leukemia_data.pixels.decode import decode_frame
from leukemia_data.samples.record import UNKNOWN_LABEL, ImagePlace, Record
from leukemia_data.sources.reading import FramesFound
from leukemia_data.sources.source import SourceListing
from leukemia_data.sources.source_file import read_file

HEADERS_A_CLASS = 48
DECODED_A_CLASS = 4
_MAX_CLASSES = 16
_STORED_SHARE = 8
_ORIENTATION_TAG, _FIRST_TURNED = 274, 5
_DARK, _BRIGHT = 8, 96
_NUM_THREADS = 4
_TIFF = (b"II", b"MM")
_READERS: dict[bytes, type[ImageFile]] = {
    b"BM": BmpImageFile,
    b"\x89PNG": PngImageFile,
    b"\xff\xd8": JpegImageFile,
    **dict.fromkeys(_TIFF, TiffImageFile),
}


class _Header(NamedTuple):
    """Height and width of the upright picture, and Pillow's name of its mode."""

    size_px: tuple[int, int]
    mode: str


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of one image; None where it cannot be read."""

    header: _Header | None
    ground: str = ""


def with_frames(listing: SourceListing) -> SourceListing:
    """The listing, with what a sample of its frames tells in its reading."""
    return replace(listing, reading=replace(listing.reading, frames=tuple(look_at_frames(listing))))


def look_at_frames(listing: SourceListing) -> Iterator[FramesFound]:
    """Look at some images of each class.

    Parameters
    ----------
    listing
        The source; its order of records decides which images are looked at.

    Yields
    ------
    FramesFound
        For each class, and for images without one under an empty name.
    """
    by_label: dict[int, list[Record]] = {}
    for record in listing.records:
        if not record.is_missing:
            by_label.setdefault(record.label, []).append(record)
    names = {UNKNOWN_LABEL: "", **dict(enumerate(listing.classes))}
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        for label in sorted(by_label, key=lambda label: (label == UNKNOWN_LABEL, label))[:_MAX_CLASSES]:
            chosen = _spread(by_label[label], HEADERS_A_CLASS)
            decoded = set(map(id, _spread(chosen, DECODED_A_CLASS)))
            looks = list(executor.map(_look, (record.path for record in chosen), (id(r) in decoded for r in chosen)))
            yield _summary(names[label], looks)


def _spread(records: Sequence[Record], most: int) -> list[Record]:
    """At most so many records, evenly spread over their order; few of a store, which sends whole objects."""
    if records and not isinstance(records[0].path, Path):
        most = max(most // _STORED_SHARE, 1)
    if len(records) <= most:
        return list(records)
    return [records[number * len(records) // most] for number in range(most)]


def _look(place: ImagePlace, is_decoded: bool) -> _Look:
    """Look at an image; twice, if need be: a fault of the disk that passes may not change what is recorded."""
    for _ in range(2):
        seen = _look_once(place, is_decoded)
        if seen.header is not None:
            break
    return seen


def _look_once(place: ImagePlace, is_decoded: bool) -> _Look:
    try:
        if not is_decoded and isinstance(place, Path):
            return _Look(_read_header(place))
        data = read_file(place).data
        return _Look(_read_header(data), ground_of(decode_frame(data)) if is_decoded else "")
    except Exception:  # Pillow's readers end in whatever a damaged file leads them into, such as a MemoryError.
        # What cannot be read is told when it is to be preprocessed.
        return _Look(None)


def _read_header(file: Path | NDArray[np.uint8]) -> _Header:
    """Read a header; whatever Pillow's readers end in is raised, for nothing larger than its header is read.

    The readers are called by themselves: ``PIL.Image.open`` warns of large pictures for the whole process.
    """
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.data) as stream:
        start = stream.read(4)
        reader = next((reader for magic, reader in _READERS.items() if start.startswith(magic)), None)
        if reader is None:
            raise ValueError("no image")
        stream.seek(0)
        picture = reader(stream)
        width, height = picture.size
        # A TIFF is turned by Pillow itself.
        is_turned = not start.startswith(_TIFF) and picture.getexif().get(_ORIENTATION_TAG, 1) >= _FIRST_TURNED
        return _Header((width, height) if is_turned else (height, width), picture.mode)


def ground_of(frame_HWC: NDArray[np.uint8]) -> str:
    """The ground around the cell: ``black``, ``bright`` or ``grey``, by the median of the outermost pixels.

    Parameters
    ----------
    frame_HWC : ndarray of shape (height, width, 3), uint8
        RGB.
    """
    edge = np.concatenate([frame_HWC[0], frame_HWC[-1], frame_HWC[1:-1, 0], frame_HWC[1:-1, -1]])
    level = float(np.median(edge.max(axis=1)))
    return "black" if level <= _DARK else "bright" if level >= _BRIGHT else "grey"


def _summary(name: str, looks: Sequence[_Look]) -> FramesFound:
    headers = [look.header for look in looks if look.header is not None]
    sizes = Counter(header.size_px for header in headers)
    grounds = Counter(look.ground for look in looks if look.ground)
    return FramesFound(
        class_name=name,
        num_looked_at=len(looks),
        sizes=tuple((height, width, count) for (height, width), count in sizes.most_common()),
        modes=tuple(Counter(header.mode for header in headers).most_common()),
        ground=grounds.most_common(1)[0][0] if grounds else "",
    )
