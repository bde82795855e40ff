"""Caches for measuring, made by the project's own functions but without preprocessing anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.hdf5_file import SampleIndex, write_index
from leukemia_data.caches.manifest import Manifest, ShardEntry, save_manifest
from leukemia_data.caches.shard import shard_name, write_shard
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.fingerprint import cache_fingerprint, installed_opencv_version
from leukemia_data.records.record import CELL_CLASSES, Record
from leukemia_data.records.sample_table import SampleTable, unsettled_states

SHARD_CAPACITY = 128
RECIPE = "report-a"
SUBJECTS = 73
_DIGEST_DIGITS = 32


def random_cells(num_images: int, size_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of noise in a disc on exact black, (n, S, S, 3): what they show does not matter to a copy."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (num_images, size_px, size_px, 3), np.uint8)
    rows, columns = np.ogrid[:size_px, :size_px]
    middle = (size_px - 1) / 2
    images[:, (rows - middle) ** 2 + (columns - middle) ** 2 > (0.4 * size_px) ** 2] = 0
    return images


def write_repeated_cache(directory: Path, images_NSSC: NDArray[np.uint8], num_samples: int) -> None:
    """Write a whole cache of `num_samples` images, which repeats the given ones as often as it takes."""
    directory.mkdir(parents=True, exist_ok=True)
    size_px = images_NSSC.shape[1]
    entries: list[ShardEntry] = []
    table = made_table(num_samples)
    for start in range(0, num_samples, SHARD_CAPACITY):
        rows = np.arange(start, min(start + SHARD_CAPACITY, num_samples))
        pixels = images_NSSC[rows % len(images_NSSC)]
        entries.append(write_shard(directory, pixels, table.take(rows), _fingerprint(size_px)))
    _commit(directory, size_px, entries, table)


def write_index_only_cache(directory: Path, model: Cache, num_samples: int) -> None:
    """Write a cache whose index and manifest are real and whose shards are empty files of the right size."""
    directory.mkdir(parents=True, exist_ok=True)
    shard = max(model.manifest.shards, key=lambda entry: entry.num_samples)
    image_bytes = model.pixels_per_image * 3
    entries: list[ShardEntry] = []
    for number, start in enumerate(range(0, num_samples, SHARD_CAPACITY)):
        digest = f"{number:0{_DIGEST_DIGITS // 2}x}".ljust(_DIGEST_DIGITS, "0")
        count = min(SHARD_CAPACITY, num_samples - start)
        num_bytes = shard.images_offset_bytes + count * image_bytes
        entry = replace(shard, name=shard_name(digest), num_samples=count, num_bytes=num_bytes, digest=digest)
        with (directory / entry.name).open("wb") as file:
            file.truncate(num_bytes)
        entries.append(entry)
    _commit(directory, model.size_px, entries, made_table(num_samples))


def made_table(num_samples: int) -> SampleTable:
    """Rows with ids, subjects and labels like those of the published set."""
    records = (_record(number) for number in range(num_samples))
    table = SampleTable.concatenate([SampleTable.from_records(part) for part in _parts(records, 100_000)])
    return replace(table, crcs=np.arange(num_samples, dtype=np.uint32))


def _record(number: int) -> Record:
    subject = number % SUBJECTS + 1
    label = int(number % 3 != 0)
    class_name = CELL_CLASSES[label]
    prefix = "" if label else "H"
    file_name = f"UID_{prefix}{subject}_{number // SUBJECTS}_{number % 7 + 1}_{class_name}.bmp"
    record_id = f"training_data/fold_{number % 3}/{class_name}/{file_name}"
    return Record(record_id, Path(file_name), label, f"{prefix}{subject}", fold=number % 3)


def _parts(records: Iterable[Record], length: int) -> Iterable[list[Record]]:
    part: list[Record] = []
    for record in records:
        part.append(record)
        if len(part) == length:
            yield part
            part = []
    if part:
        yield part


def _commit(directory: Path, size_px: int, entries: list[ShardEntry], table: SampleTable) -> None:
    manifest = Manifest(
        name="made-for-measuring",
        size_px=size_px,
        fingerprint=_fingerprint(size_px),
        recipe=load_recipe(RECIPE),
        classes=CELL_CLASSES,
        shards=tuple(entries),
        index=write_index(directory, SampleIndex(table, unsettled_states(len(table)))),
        quarantined=(),
        library_versions={},
        source_state=None,
    )
    save_manifest(directory, manifest)


def _fingerprint(size_px: int) -> str:
    return cache_fingerprint(load_recipe(RECIPE), size_px, installed_opencv_version())
