"""Bytes of an image file in, RGB uint8 pixels out, or the reason why not; and the digest of the pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.decoding.headers import (
    BMP_MAGIC,
    JPEG_MAGIC,
    PNG_MAGIC,
    ImageHeader,
    read_bmp_header,
    read_jpeg,
    read_png,
    turn_upright,
)
from leukemia_data.decoding.tiff import decode_tiff
from leukemia_data.decoding.tiff_directories import TIFF_MAGICS
from leukemia_data.errors import ImageError
from leukemia_data.records.fingerprint import bytes_digest

ALL_BLACK = "every pixel is black: no cell in it"


def decode_rgb(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a BMP, PNG, TIFF or JPEG file that shows something.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB; grey images get three equal channels, pictures are turned as their EXIF orientation says.

    Raises
    ------
    ImageError
        With the reason: those of :func:`decode_frame`, or all black.
    """
    image_HWC = decode_frame(data)
    if is_all_black(image_HWC):
        raise ImageError(ALL_BLACK)
    return image_HWC


def decode_frame(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode like :func:`decode_rgb`, but an all-black image too.

    Raises
    ------
    ImageError
        With the reason: empty, truncated, damaged, of another format, more than 8 bits a channel, transparent, larger
        than ``MAX_MEGAPIXELS``, of several pages or frames, or neither grey nor RGB.
    """
    head = data[:8].tobytes()
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(BMP_MAGIC):
        return _decode(read_bmp_header(data), data)
    if head == PNG_MAGIC:
        return _decode(*read_png(data))
    if head.startswith(JPEG_MAGIC):
        return _decode(*read_jpeg(data))
    if head.startswith(TIFF_MAGICS):
        return decode_tiff(data)
    raise ImageError("not a BMP, PNG, TIFF or JPEG file, whatever its name says")


def is_all_black(image_HWC: NDArray[np.uint8]) -> bool:
    """Whether no pixel of an image of shape (height, width, 3), uint8, has any light."""
    return not cv2.hasNonZero(image_HWC.reshape(len(image_HWC), -1))


def _decode(header: ImageHeader, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode by OpenCV, which turns JPEGs itself."""
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED if header.has_alpha else cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            # The machine's fault: a good image must not be left out for it.
            raise MemoryError(error.err) from error
        raise ImageError(f"cannot be decoded: {error.err}") from error
    if decoded is None:
        raise ImageError("cannot be decoded: truncated or damaged")
    image = np.asarray(decoded, np.uint8)
    return turn_upright(_opaque_rgb(image) if header.has_alpha else image, header.orientation)


def _opaque_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) BGRA without transparent pixels, or (H, W, 3) BGR -> (H, W, 3) RGB."""
    if image.shape[2] == 4:
        if (image[..., 3] != 255).any():
            raise ImageError("has transparent pixels: flatten it onto black first")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def frame_digest(image_HWC: NDArray[np.uint8]) -> bytes:
    """Digest of a frame's shape and pixels, 16 bytes: what a cache's ``pixel_digests`` hold.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        RGB, as decoded.
    """
    shape = np.array(image_HWC.shape, "<i8").tobytes()
    return bytes_digest(shape + bytes_digest(np.ascontiguousarray(image_HWC)))


class _OpenCVSettings:
    """OpenCV's number of threads and its log level, which are the process's: the last to leave restores them."""

    def __init__(self) -> None:
        self._lock, self._num_inside = threading.Lock(), 0
        self._earlier = (0, 0)

    def enter(self) -> None:
        with self._lock:
            if self._num_inside == 0:
                self._earlier = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()
                cv2.setNumThreads(1)
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._num_inside += 1

    def leave(self) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                num_threads, level = self._earlier
                cv2.setNumThreads(num_threads)
                cv2.utils.logging.setLogLevel(level)


_SETTINGS = _OpenCVSettings()


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Have OpenCV use one thread and print nothing for the block, as where images are spread over threads or processes.

    Both are settings of the process; blocks may overlap in several threads.
    """
    _SETTINGS.enter()
    try:
        yield
    finally:
        _SETTINGS.leave()
