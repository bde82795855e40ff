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


class _OpenCVState:
    """What OpenCV has for the whole process, while it is changed: by how many, and what it was."""

    lock = threading.Lock()
    num_users = 0
    num_threads = 0
    log_level = 0


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV use one thread and log nothing until the context ends, and then as it did before.

    For work that has threads or processes of its own: OpenCV's would take their cores, and what it logs of damaged
    files is said by errors. Both are states of the process; contexts may overlap, in one thread or several.
    """
    with _OpenCVState.lock:
        if _OpenCVState.num_users == 0:
            _OpenCVState.num_threads = cv2.getNumThreads()
            _OpenCVState.log_level = cv2.utils.logging.getLogLevel()
            cv2.setNumThreads(1)
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _OpenCVState.num_users += 1
    try:
        yield
    finally:
        with _OpenCVState.lock:
            _OpenCVState.num_users -= 1
            if _OpenCVState.num_users == 0:
                cv2.setNumThreads(_OpenCVState.num_threads)
                cv2.utils.logging.setLogLevel(_OpenCVState.log_level)


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
