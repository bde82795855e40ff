"""How the bytes of one image are stored in a shard: as they are, or compressed without loss; codecs by name.

``image_starts`` finds an image's bytes in the file; :meth:`Codec.decode` makes pixels of them, whether they come from a
map, a read or a network. A codec of a user's own is registered by ``CODECS.register(MyCodec())``, in every process that
writes or reads shards of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from leukemia_data.errors import CacheError, UsageError
from leukemia_data.libraries import np
from leukemia_data.registry import Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAW, ZSTD = "raw", "zstd"

StoredBytes: TypeAlias = bytes | memoryview
"""Bytes of a file: a copy, or a view of a map."""


class Codec(Protocol):
    """Turns the pixels of one image into the bytes that a shard holds of it, and back. Safe to use from threads."""

    @property
    def name(self) -> str:
        """Under which manifests and shards know it."""
        ...

    @property
    def hdf5_filter(self) -> tuple[int, tuple[int, ...]]:
        """Number and options of the HDF5 filter that decodes the same bytes; registered numbers begin at 256."""
        ...

    @property
    def library_versions(self) -> Mapping[str, str]:
        """Releases of the libraries that decide the stored bytes."""
        ...

    def encode(self, image_SSC: NDArray[np.uint8]) -> bytes:
        """The bytes to store of an image, (S, S, 3) uint8 in C order; equal pixels give equal bytes."""
        ...

    def decode(self, stored: StoredBytes, out: NDArray[np.uint8]) -> None:
        """Fill `out`, (S * S * 3,) uint8 and contiguous, and nothing beyond it.

        Raises
        ------
        ValueError
            If the bytes are damaged, or are those of an image of another size.
        """
        ...

    def stored_length(self, stored: StoredBytes, image_bytes: int) -> int:
        """How many of these bytes the first image takes, found without decoding it.

        Raises
        ------
        ValueError
            If they do not begin with an image of `image_bytes` bytes.
        """
        ...


class RawCodec:
    """Pixels as they are: what :class:`Codec` asks for, where there is nothing to do."""

    name = RAW
    hdf5_filter = (0, ())

    @property
    def library_versions(self) -> Mapping[str, str]:
        """See :class:`Codec`: none."""
        return {}

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
# Caches of raw pixels work without its library.
CODECS.lazy(ZSTD, "leukemia_data.caches.zstd_codec:ZSTD_CODEC", extra="zstd")


def codec_named(name: str) -> Codec:
    """The codec of a name; the library that a codec needs is loaded only now.

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
