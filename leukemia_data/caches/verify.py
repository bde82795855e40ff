"""Check a cache byte by byte, and say exactly what is damaged.

The digest of each shard finds any changed byte; the CRC of each image tells which images it hit; the rows of each
shard are held against the index. Nothing is repaired here: remove the files that are named and build again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leukemia_data.caches.index import read_index
from leukemia_data.caches.manifest import Manifest, ShardEntry, load_manifest
from leukemia_data.caches.shard import ShardImages, open_images, read_table, shard_images
from leukemia_data.errors import CacheError
from leukemia_data.samples.fingerprint import cache_fingerprint, file_digest
from leukemia_data.samples.sample_table import SampleTable


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong with a file, and the ids of the images it hit, where that is known."""

    file: str
    problem: str
    record_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check found."""

    directory: Path
    num_shards: int
    num_samples: int
    num_bytes: int
    damages: tuple[Damage, ...]


def verify_cache(directory: Path, *, num_threads: int, progress: Callable[[int], None]) -> VerifyReport:
    """Check every file of a cache.

    Parameters
    ----------
    directory
        The cache.
    num_threads
        Shards checked at a time; hashing and CRC release the interpreter lock.
    progress
        Called with the number of samples of each checked shard.

    Raises
    ------
    CacheError
        If there is no readable manifest: then nothing says what should be there.
    """
    manifest = load_manifest(directory)
    damages = _check_manifest(manifest)
    try:
        table: SampleTable | None = read_index(directory, manifest.index).table
    except CacheError as error:
        damages.append(Damage(manifest.index.name, str(error)))
        table = None
    first_rows = np.cumsum([0, *(shard.num_samples for shard in manifest.shards)])

    def check(number: int) -> list[Damage]:
        shard = manifest.shards[number]
        rows = None if table is None else table.take(np.arange(first_rows[number], first_rows[number + 1]))
        found = _check_shard(directory, manifest, shard, rows)
        progress(shard.num_samples)
        return found

    if table is not None and len(table) != manifest.num_samples:
        damages.append(
            Damage(manifest.index.name, f"has {len(table)} samples, the manifest says {manifest.num_samples}")
        )
        table = None
    with ThreadPoolExecutor(num_threads) as pool:
        for found in pool.map(check, range(len(manifest.shards))):
            damages.extend(found)
    return VerifyReport(directory, len(manifest.shards), manifest.num_samples, manifest.num_bytes, tuple(damages))


def _check_manifest(manifest: Manifest) -> list[Damage]:
    expected = cache_fingerprint(manifest.recipe, manifest.size_px, manifest.library_versions.get("opencv", ""))
    if expected != manifest.fingerprint:
        return [Damage("manifest.json", "its fingerprint does not belong to its recipe, size and OpenCV release")]
    return []


def _check_shard(directory: Path, manifest: Manifest, shard: ShardEntry, indexed: SampleTable | None) -> list[Damage]:
    path = directory / shard.name
    images = shard_images(directory, shard, manifest.size_px)
    try:
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            return [Damage(shard.name, f"has {num_bytes} bytes, the manifest says {shard.num_bytes}")]
        if file_digest(path) != shard.digest:
            # Nothing but the pixels is looked at from here on: HDF5 may hang or crash on damaged files.
            damage = Damage(shard.name, "its bytes are not those that were written (digest differs)")
            return [damage, *(_check_pixels(images, indexed) if indexed is not None else [])]
        if open_images(path) != images:
            return [Damage(shard.name, "its images are of another shape or place than the manifest says")]
        table = read_table(path)
        rows = [] if indexed is None or table.equals(indexed) else ["its rows are not those of the index"]
        return [*(Damage(shard.name, problem) for problem in rows), *_check_pixels(images, table)]
    except FileNotFoundError:
        return [Damage(shard.name, "is missing")]
    except (OSError, CacheError) as error:
        return [Damage(shard.name, f"cannot be read: {error}")]


def _check_pixels(images: ShardImages, table: SampleTable) -> list[Damage]:
    bad = [row for row, image in enumerate(images.map()) if zlib.crc32(image.data) != table.crcs[row]]
    ids = tuple(table.take(bad).id_texts) if bad else ()
    return [Damage(images.path.name, f"{len(bad)} images fail their CRC", ids)] if bad else []
