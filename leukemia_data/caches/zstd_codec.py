"""Zstandard codec, one frame per image, as HDF5's registered filter 32015 stores a chunk.

The level is part of the format: with one library release, equal pixels give equal bytes. Each frame has its content
size and a checksum, so that damage raises an error.
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
    """See :class:`leukemia_data.caches.codec.Codec`. Each thread has its own compressor and decompressor."""

    name = "zstd"
    hdf5_filter = (32015, (_LEVEL,))
    library_versions: Mapping[str, str] = {
        "zstandard": zstandard.__version__,
        "libzstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
    }

    def __init__(self) -> None:
        self._own = _PerThread()

    def encode(self, image_SSC: NDArray[np.uint8]) -> bytes:
        """See ``Codec``."""
        return self._own.compressor.compress(np.ascontiguousarray(image_SSC).data)

    def decode(self, stored: bytes | memoryview, out: NDArray[np.uint8]) -> None:
        """See ``Codec``. The library releases the GIL and writes to `out` directly."""
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
    """Check the declared size of a frame before decoding: a small one could expand to gigabytes."""
    if len(stored) < _MAGIC_BYTES:
        raise ValueError("its bytes are missing")
    frame = zstandard.get_frame_parameters(stored)
    if frame.content_size != image_bytes:
        raise ValueError(f"it holds {frame.content_size} pixel values, not {image_bytes}")
    if not frame.has_checksum:
        raise ValueError("it has no checksum")


class _PerThread(threading.local):
    """Compressor and decompressor of a thread, created on first use."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(
            level=_LEVEL, write_checksum=True, write_content_size=True, write_dict_id=False
        )
        self.decompressor = zstandard.ZstdDecompressor()


ZSTD_CODEC = ZstdCodec()
