"""Zstandard, one frame an image: exactly what HDF5's registered filter 32015 stores of a chunk.

The level is part of the format: with one release of the library, equal pixels give equal bytes everywhere. Each frame
stores how many pixels it holds and ends with a checksum of them, so that a damaged one is an error, never pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import zstandard
from numpy.typing import NDArray

_LEVEL = 3
# RFC 8878: a block's header has its size, its type and whether it is the last; a repeated byte is stored once.
_MAGIC_BYTES, _BLOCK_HEADER_BYTES, _CHECKSUM_BYTES = 4, 3, 4
_RUN_LENGTH_BLOCK = 1


class ZstdCodec:
    """See :class:`leukemia_data.caches.codec.Codec`. Compressors and decompressors serve one thread each."""

    name = "zstd"
    hdf5_filter = (32015, (_LEVEL,))

    def __init__(self) -> None:
        self._own = _PerThread()

    @property
    def library_versions(self) -> Mapping[str, str]:
        """See ``Codec``: of the Python package and of the library that it brings."""
        return {"zstandard": zstandard.__version__, "libzstd": ".".join(map(str, zstandard.ZSTD_VERSION))}

    def encode(self, image_SSC: NDArray[np.uint8]) -> bytes:
        """See ``Codec``."""
        return self._own.compressor.compress(np.ascontiguousarray(image_SSC).data)

    def decode(self, stored: bytes | memoryview, out: NDArray[np.uint8]) -> None:
        """See ``Codec``. The library releases the interpreter's lock and writes to `out` itself."""
        try:
            _check_content(stored, out.size)
            num_bytes = self._own.decompressor.stream_reader(stored).readinto(out.data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        if num_bytes != out.size:
            raise ValueError(f"its bytes end after {num_bytes} of {out.size} pixel values")

    def stored_length(self, stored: bytes | memoryview, image_bytes: int) -> int:
        """See ``Codec``."""
        try:
            _check_content(stored, image_bytes)
            end = zstandard.frame_header_size(stored)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        is_last = False
        while not is_last and end <= len(stored):
            header = int.from_bytes(bytes(stored[end : end + _BLOCK_HEADER_BYTES]), "little")
            is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            end += _BLOCK_HEADER_BYTES + (1 if kind == _RUN_LENGTH_BLOCK else size)
        end += _CHECKSUM_BYTES
        if end > len(stored):
            raise ValueError("its bytes end before it does")
        return end


def _check_content(stored: bytes | memoryview, image_bytes: int) -> None:
    """Check the size that a frame declares before anything is decoded: a small one could hold gigabytes."""
    if len(stored) < _MAGIC_BYTES:
        raise ValueError("its bytes are missing")
    frame = zstandard.get_frame_parameters(stored)
    if frame.content_size != image_bytes:
        raise ValueError(f"it holds {frame.content_size} pixel values, not {image_bytes}")
    if not frame.has_checksum:
        raise ValueError("it has no checksum")


class _PerThread(threading.local):
    """What each thread has for itself, made when it first asks."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(
            level=_LEVEL, write_checksum=True, write_content_size=True, write_dict_id=False
        )
        self.decompressor = zstandard.ZstdDecompressor()


ZSTD_CODEC = ZstdCodec()
