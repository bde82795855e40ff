"""Check a cache without its pixels: what is there, how large, and every byte that is no pixel.

That costs two small reads a shard, whatever the images weigh. A flipped bit in a pixel is found by ``verify`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.manifest_entries import ShardEntry
from leukemia_data.caches.shard import metadata_digest, shard_images
from leukemia_data.caches.verify import Damage, VerifyReport, check_manifest, read_rows
from leukemia_data.errors import CacheError


def check_quickly(directory: Path, *, num_threads: int, progress: Callable[[int], None]) -> VerifyReport:
    """Check the manifest, the index, and of each shard presence, size, header and rows.

    Parameters
    ----------
    directory
        The cache.
    num_threads
        Shards looked at at a time.
    progress
        Called with the number of samples of each checked shard.

    Raises
    ------
    CacheError
        If there is no readable manifest: then nothing says what should be there.
    """
    manifest = load_manifest(directory)
    damages = check_manifest(directory, manifest)
    try:
        read_rows(directory, manifest)
    except CacheError as error:
        damages.append(Damage(manifest.index.name, str(error)))

    def check(shard: ShardEntry) -> Damage | None:
        damage = _check_shard(directory, shard, manifest.size_px)
        progress(shard.num_samples)
        return damage

    with ThreadPoolExecutor(num_threads) as pool:
        damages.extend(damage for damage in pool.map(check, manifest.shards) if damage is not None)
    return VerifyReport(directory, len(manifest.shards), manifest.num_samples, manifest.num_bytes, tuple(damages))


def _check_shard(directory: Path, shard: ShardEntry, size_px: int) -> Damage | None:
    images = shard_images(directory, shard, size_px)
    try:
        num_bytes = images.path.stat().st_size
        if num_bytes != shard.num_bytes:
            return Damage(shard.name, f"has {num_bytes} bytes, the manifest says {shard.num_bytes}")
        # A manifest of version 1 does not tell that digest.
        if shard.metadata_digest is not None and metadata_digest(images) != shard.metadata_digest:
            return Damage(shard.name, "its header or its rows are not those that were written")
    except FileNotFoundError:
        return Damage(shard.name, "is missing")
    except OSError as error:
        return Damage(shard.name, f"cannot be read: {error}")
    return None
