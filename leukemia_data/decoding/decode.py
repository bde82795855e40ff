"""Bytes and pixels (RGB uint8) of image files, or the reason why there are none."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.decoding import headers
from leukemia_data.decoding.tiff import decode_tiff
from leukemia_data.decoding.tiff_directories import TIFF_MAGICS
from leukemia_data.errors import ImageError
from leukemia_data.files.atomic import FileState, state_of
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.records.record import ImagePlace, Record
from leukemia_data.stores.faults import MissingObjectError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
ALL_BLACK = "every pixel is black: no cell in it"


class _OpenCVState:
    """OpenCV's settings of the process before they were changed, and by how many contexts they are."""

    lock = threading.Lock()
    num_users = 0
    num_threads = 0
    log_level = 0


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV use one thread and log nothing in the whole process until the context ends.

    For work with its own threads or processes. Contexts may overlap, in one thread or several.
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


def map_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], num_threads: int) -> Iterator[_Result]:
    """Yield the function's result for each item, in order; what has not begun is dropped when the caller stops."""
    executor = ThreadPoolExecutor(num_threads)
    try:
        yield from executor.map(function, items)
    finally:
        executor.shutdown(cancel_futures=True)


def decode_rgb(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a BMP, PNG, TIFF or JPEG file as :func:`decode_frame`; raises ImageError for an all-black image too."""
    image_HWC = decode_frame(data)
    if is_all_black(image_HWC):
        raise ImageError(ALL_BLACK)
    return image_HWC


def decode_frame(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode a BMP, PNG, TIFF or JPEG file.

    Parameters
    ----------
    data : ndarray of shape (num_bytes,), uint8
        The whole file.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        RGB; grey images get three equal channels, pictures are turned upright by their EXIF orientation.

    Raises
    ------
    ImageError
        With the reason: empty, truncated, damaged, of another format, more than 8 bits a channel, transparent, larger
        than ``MAX_MEGAPIXELS``, of several pages or frames, or neither grey nor RGB.
    """
    head = data[:8].tobytes()
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(headers.BMP_MAGIC):
        return _decode(headers.read_bmp_header(data), data)
    if head == headers.PNG_MAGIC:
        return _decode(*headers.read_png(data))
    if head.startswith(headers.JPEG_MAGIC):
        return _decode(*headers.read_jpeg(data))
    if head.startswith(TIFF_MAGICS):
        return decode_tiff(data)
    raise ImageError("not a BMP, PNG, TIFF or JPEG file, whatever its name says")


def is_all_black(image_HWC: NDArray[np.uint8]) -> bool:
    """Return whether all values of an image (H, W, 3), uint8, are 0."""
    return not cv2.hasNonZero(image_HWC.reshape(len(image_HWC), -1))


def _decode(header: headers.ImageHeader, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Decode by OpenCV, which turns JPEGs upright itself."""
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED if header.has_alpha else cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            # The image is not at fault.
            raise MemoryError(error.err) from error
        raise ImageError(f"cannot be decoded: {error.err}") from error
    if decoded is None:
        raise ImageError("cannot be decoded: truncated or damaged")
    image = np.asarray(decoded, np.uint8)
    return headers.turn_upright(_opaque_rgb(image) if header.has_alpha else image, header.orientation)


def _opaque_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) BGRA without transparent pixels, or (H, W, 3) BGR -> (H, W, 3) RGB."""
    if image.shape[2] == 4:
        if (image[..., 3] != 255).any():
            raise ImageError("has transparent pixels: flatten it onto black first")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def frame_digest(image_HWC: NDArray[np.uint8]) -> bytes:
    """Return the digest of a frame's shape and pixels (H, W, 3), 16 bytes, as in a cache's ``pixel_digests``."""
    shape = np.array(image_HWC.shape, "<i8").tobytes()
    return bytes_digest(shape + bytes_digest(np.ascontiguousarray(image_HWC)))


# Opening a pipe without a writer blocks. Windows has neither.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The bytes of a file, with its state while it was read; of an object, only the size is known."""

    data: NDArray[np.uint8]
    state: FileState


def read_record(record: Record) -> SourceFile:
    """Read the file of a record, see :func:`read_file`; an object of the listed size has the listed state.

    One that was replaced by another of the same size is read again at the next build, which lists another state.
    """
    file = read_file(record.path)
    if isinstance(record.path, Path):
        return file
    if file.state.size_bytes != record.state.size_bytes:
        raise ImageError("it changed after it was listed: try again when nothing writes to it any more")
    return SourceFile(file.data, record.state)


def read_file(path: ImagePlace) -> SourceFile:
    """Read a whole file.

    Raises
    ------
    ImageError
        If it cannot be read, is no regular file, or changed while it was read.
    StorageError
        If its store cannot be reached or denies access.
    """
    if isinstance(path, Path):
        return _read_local(path)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except MissingObjectError as error:
        raise ImageError("the file is missing") from error
    return SourceFile(data, FileState(len(data)))


def _read_local(path: Path) -> SourceFile:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise ImageError(_why_no_file(before.st_mode))
            data = np.fromfile(file, np.uint8)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise ImageError(_why_unreadable(path, error)) from error
    state = state_of(after)
    if state_of(before) != state or len(data) != state.size_bytes:
        raise ImageError("it changed while it was read: try again when nothing writes to it any more")
    return SourceFile(data, state)


def _why_no_file(mode: int) -> str:
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
    return f"{kind}, not an image file: rename or remove it"


def _why_unreadable(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError) and not path.is_dir():
        return "may not be read: give yourself the permission to"
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        if path.is_symlink():
            return "a link that leads to no file: repair or remove it"
        return "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {_said(error)}"
    return f"cannot be read: {_said(error)}" if stat.S_ISREG(mode) else _why_no_file(mode)


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
