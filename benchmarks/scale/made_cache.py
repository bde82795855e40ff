"""Caches of any number of samples in the real format.

The index and the manifest are whole. Shards are files of the right size that hold nothing but zeros and take no room on
the disk; their digests of header and rows are right, so that they open. Small caches of real pixels come from
:func:`write_pixel_cache`.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.build import library_versions
from leukemia_data.caches.hdf5_file import SampleIndex, write_index
from leukemia_data.caches.manifest import Manifest, ShardEntry, cache_dir_name, save_manifest
from leukemia_data.caches.shard import write_shard
from leukemia_data.caches.statistics import channel_moments
from leukemia_data.operations.recipe import Recipe, load_recipe
from leukemia_data.records.fingerprint import bytes_digest, cache_fingerprint
from leukemia_data.records.sample_table import bytes_per_row
from scale.made_samples import CLASSES, made_index

NAME = "cells"
RECIPE = "report-a"
_HEADER_BYTES = 4096


def cache_directory(root: Path, size_px: int, recipe: Recipe) -> Path:
    """Where a build of the recipe looks for the cache."""
    return root / NAME / cache_dir_name(size_px, cache_fingerprint(recipe, size_px, cv2.__version__))


def write_sparse_cache(root: Path, num_samples: int, size_px: int, capacity: int, state: str | None = None) -> Path:
    """Write a cache whose shards are holes; `state` is that of the source it pretends to be made from."""
    recipe = load_recipe(RECIPE)
    directory = cache_directory(root, size_px, recipe)
    directory.mkdir(parents=True)
    index, bounds = made_index(num_samples, capacity)
    row_bytes = bytes_per_row(index.table)
    shards = [
        sparse_shard(directory, number, int(count), size_px, row_bytes) for number, count in enumerate(np.diff(bounds))
    ]
    _commit(directory, recipe, size_px, index, shards, state)
    return directory


def sparse_shard(directory: Path, number: int, num_samples: int, size_px: int, row_bytes: int) -> ShardEntry:
    """A file of zeros that is as large as a shard, and its entry."""
    name = f"shard-{number:016x}.h5"
    num_bytes = _HEADER_BYTES + num_samples * (size_px * size_px * 3 + row_bytes)
    with (directory / name).open("wb") as file:
        file.truncate(num_bytes)
    around = bytes_digest(bytes(_HEADER_BYTES + num_samples * row_bytes)).hex()
    return ShardEntry(name, num_samples, num_bytes, f"{number:032x}", _HEADER_BYTES, around)


def write_pixel_cache(root: Path, num_samples: int, size_px: int, capacity: int) -> Path:
    """Write a cache of noise: real shards, as a build writes them."""
    recipe = load_recipe(RECIPE)
    directory = cache_directory(root, size_px, recipe)
    directory.mkdir(parents=True)
    index, bounds = made_index(num_samples, capacity)
    random = np.random.default_rng(1)
    fingerprint = cache_fingerprint(recipe, size_px, cv2.__version__)
    shards = []
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        images = random.integers(0, 256, (end - first, size_px, size_px, 3), dtype=np.uint8)
        rows = index.table.take(np.arange(first, end))
        _describe(images, rows)
        for name in ("channel_sums", "channel_square_sums", "crcs"):
            getattr(index.table, name)[first:end] = getattr(rows, name)
        shards.append(write_shard(directory, images, rows, fingerprint))
    _commit(directory, recipe, size_px, index, shards, None)
    return directory


def _describe(images: NDArray[np.uint8], rows: object) -> None:
    for row, image in enumerate(images):
        rows.channel_sums[row], rows.channel_square_sums[row] = channel_moments(image)
        rows.crcs[row] = zlib.crc32(image.data)


def _commit(
    directory: Path, recipe: Recipe, size_px: int, index: SampleIndex, shards: list[ShardEntry], state: str | None
) -> None:
    manifest = Manifest(
        name=NAME,
        size_px=size_px,
        fingerprint=cache_fingerprint(recipe, size_px, cv2.__version__),
        recipe=recipe,
        classes=CLASSES,
        shards=tuple(shards),
        index=write_index(directory, index),
        quarantined=(),
        library_versions=library_versions(),
        source_state=state,
    )
    save_manifest(directory, manifest)


def with_state(manifest: Manifest, state: str) -> Manifest:
    """The same cache, made from a source in this state."""
    return replace(manifest, source_state=state)
