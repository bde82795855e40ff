"""How the bytes of one image are stored in a shard: as they are, or compressed without loss.

Where an image's bytes lie in the file is said by ``image_starts``. Whoever has them, from a map, a read or a network,
gets the pixels by :meth:`Codec.decode`. These two are all in which the codecs differ for a reader.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.manifest import CODECS, RAW
from leukemia_data.errors import CacheError, UsageError

StoredBytes: TypeAlias = bytes | memoryview
"""Bytes of a file: a copy, or a view of a map."""

CODEC_LIBRARIES = ("zstandard", "libzstd")
"""Names under which manifests tell the releases of what any codec needs."""


class Codec(Protocol):
    """Turns the pixels of one image into the bytes that a shard holds of it, and back. Safe to use from threads."""

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


def codec_named(name: str) -> Codec:
    """The codec of a name; the library that a codec needs is loaded only now.

    Raises
    ------
    UsageError
        If there is no such codec.
    CacheError
        If the library is not installed.
    """
    if name not in CODECS:
        raise UsageError(f"unknown codec {name!r}: use {' or '.join(CODECS)}")
    if name == RAW:
        return RawCodec()
    try:
        # The only way to that module: caches of raw pixels work without its library.
        module = importlib.import_module("leukemia_data.caches.zstd_codec")
    except ModuleNotFoundError as error:
        if error.name != "zstandard":
            raise
        raise CacheError(
            'compressed caches need the library zstandard, which is not installed: pip install "leukemia-cells[zstd]"'
        ) from None
    codec: Codec = module.ZstdCodec()
    return codec
