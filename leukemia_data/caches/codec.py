"""Codecs: how one image's pixels are stored in a shard, raw or losslessly compressed.

``image_starts`` finds an image's bytes in the file, and :meth:`Codec.decode` decodes them. A custom codec is registered
by ``CODECS.register(MyCodec())``, in every process that writes or reads its shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from leukemia_data.errors import CacheError, UsageError
from leukemia_data.lazy_imports import np
from leukemia_data.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW, ZSTD = "raw", "zstd"

StoredBytes: TypeAlias = bytes | memoryview
"""Bytes of a file: a copy, or a view of a map."""


class Codec(Protocol):
    """Encodes the pixels of one image as stored bytes, and decodes them. Thread-safe."""

    @property
    def name(self) -> str:
        """Name in manifests and shards."""
        ...

    @property
    def hdf5_filter(self) -> tuple[int, tuple[int, ...]]:
        """Id and options of the HDF5 filter that decodes the same bytes; registered ids start at 256."""
        ...

    @property
    def library_versions(self) -> Mapping[str, str]:
        """Releases of the libraries that affect the stored bytes."""
        ...

    def encode(self, image_SSC: NDArray[np.uint8]) -> bytes:
        """Encode an image, (S, S, 3) uint8 in C order; equal pixels give equal bytes."""
        ...

    def decode(self, stored: StoredBytes, out: NDArray[np.uint8]) -> None:
        """Decode into `out`, (S * S * 3,) uint8 and contiguous.

        Raises
        ------
        ValueError
            If the bytes are damaged, or of an image of another size.
        """
        ...

    def stored_length(self, stored: StoredBytes, image_bytes: int) -> int:
        """Return the length of the first image in `stored`, without decoding it.

        Raises
        ------
        ValueError
            If they do not begin with an image of `image_bytes` bytes.
        """
        ...


class RawCodec:
    """Stores pixels unchanged; see :class:`Codec`."""

    name = RAW
    hdf5_filter = (0, ())
    library_versions: Mapping[str, str] = {}

    def encode(self, image_SSC: NDArray[np.uint8]) -> bytes:
        """See :class:`Codec`."""
        return image_SSC.tobytes()

    def decode(self, stored: StoredBytes, out: NDArray[np.uint8]) -> None:
        """See :class:`Codec`."""
        if len(stored) != out.size:
            raise ValueError(f"it has {len(stored)} bytes, not {out.size}")
        out[:] = np.frombuffer(stored, np.uint8)

    def stored_length(self, stored: StoredBytes, image_bytes: int) -> int:
        """See :class:`Codec`."""
        if len(stored) < image_bytes:
            raise ValueError(f"only {len(stored)} of its {image_bytes} bytes are there")
        return image_bytes


CODECS: Registry[Codec] = Registry("codec")
CODECS.register(RawCodec())
# Raw caches work without its library.
CODECS.lazy(ZSTD, "leukemia_data.caches.zstd_codec:ZSTD_CODEC", extra="zstd")


def codec_named(name: str) -> Codec:
    """Return the codec of a name, and import its library.

    Raises
    ------
    UsageError
        If there is no such codec.
    CacheError
        If the library is not installed.
    """
    try:
        return CODECS.get(name)
    except UsageError as error:
        if name in CODECS:
            raise CacheError(str(error)) from None
        raise
