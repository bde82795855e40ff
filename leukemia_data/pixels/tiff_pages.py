"""How many pictures a TIFF file holds: by its directories, and by what programs write that keep many in one directory.

ImageJ describes a stack of more than 4 GB by its first directory alone, and so do several writers of microscopes: the
further slices follow the first without any table. Such a file looks like one picture to every decoder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from leukemia_data.errors import ImageError
from leukemia_data.pixels.tiff_tags import TiffDirectory

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
        Those behind it, as :func:`~leukemia_data.pixels.tiff_tags.read_directories` goes on.

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
    """Planes of OME-XML that are in this file: those of a set of files are told in each of them."""
    pixels = _OME_PIXELS.search(text)
    if pixels is None:
        return 1
    sizes = {axis: int(size) for axis, size in _OME_SIZE.findall(pixels[0])}
    planes = -(-sizes.pop("C", 1) // num_channels) * math.prod(sizes.values())
    return planes // max(len(set(_OME_FILE.findall(text))), 1)
