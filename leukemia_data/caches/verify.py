"""Verify a cache in a folder or a store: every byte, or all but the pixels."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import codec_named
from leukemia_data.caches.hdf5_file import check_fit, read_index
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, ShardEntry, is_as_written, is_whole, load_manifest
from leukemia_data.caches.opening import choose_cache
from leukemia_data.caches.shard import ShardImages, intact_table, metadata_digest, open_images, read_table, shard_images
from leukemia_data.caches.shard_rows import ShardRows, open_damaged_rows
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.files.atomic import remove_file
from leukemia_data.records.fingerprint import cache_fingerprint, file_digest
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.stores.url import Location, Url


@dataclass(frozen=True, slots=True)
class Damage:
    """One defect of a file, and the ids of the affected images if known."""

    file: str
    problem: str
    record_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Result of a check."""

    directory: Location
    num_shards: int
    num_samples: int
    num_bytes: int
    damages: tuple[Damage, ...]

    @property
    def cure(self) -> str:
        """Advice on how to repair the damage."""
        if isinstance(self.directory, Path):
            return (
                f"repair it with `ldata verify {self.directory} --repair --source SOURCE`, where SOURCE is what it was "
                "built from"
            )
        return "remove the objects that are damaged and build it again, which makes them anew"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "directory": str(self.directory)}


def verify(
    location: Location,
    *,
    quick: bool = False,
    size_px: int | None = None,
    num_threads: int | None = None,
    console: Console = NULL_CONSOLE,
) -> VerifyReport:
    """Check every shard of a cache against its digest and every image against its CRC.

    Parameters
    ----------
    location
        A cache, or a folder or address with caches of which one is of the size.
    quick
        Read no pixels: check files, sizes, manifest, index, headers and rows only. For folders.
    num_threads
        Shards checked in parallel; None for one per core.

    Raises
    ------
    UsageError
        If several caches match, or `quick` is given for a store.
    CacheError
        If there is no readable manifest, or the codec's library is not installed.
    StorageError
        If the store cannot be read.
    """
    if quick and isinstance(location, Url):
        raise UsageError(f"{location}: --quick is for folders; in a store every shard is fetched and checked whole")
    found = choose_cache(location, size_px=size_px)
    num_threads = num_threads or os.cpu_count() or 1
    with console.progress(found.manifest.num_samples, "verifying") as bar:
        if not isinstance(found.location, Path):
            return _verify_stored(found.location, num_threads=num_threads, progress=bar.update)
        check = check_quickly if quick else verify_cache
        return check(found.location, num_threads=num_threads, progress=bar.update)


def verify_cache(
    directory: Path,
    *,
    num_threads: int,
    progress: Callable[[int], object],
    holding: Callable[[str], AbstractContextManager[object]] | None = None,
) -> VerifyReport:
    """Check every file of the cache in a directory.

    Parameters
    ----------
    num_threads
        Shards checked in parallel; hashing and CRC release the GIL.
    progress
        Called with the number of samples of each checked shard.
    holding
        Context manager entered with each shard's name while it is checked; downloads files of a store.

    Raises
    ------
    CacheError
        If there is no readable manifest, or the codec's library is not installed.
    """
    manifest = load_manifest(directory)
    # Before any shard: an image without its decoder is not damaged.
    codec_named(manifest.codec)
    damages, table = _check_manifest_and_index(directory, manifest)
    first_rows = np.cumsum([0, *(shard.num_samples for shard in manifest.shards)])

    def check(number: int) -> list[Damage]:
        shard = manifest.shards[number]
        rows = None if table is None else table.take(np.arange(first_rows[number], first_rows[number + 1]))
        with nullcontext() if holding is None else holding(shard.name):
            found = _check_shard(directory, manifest, shard, rows)
        progress(shard.num_samples)
        return found

    return _report(directory, manifest, damages + _check_all(check, len(manifest.shards), num_threads))


def _check_all(check: Callable[[int], list[Damage]], num_shards: int, num_threads: int) -> list[Damage]:
    with ThreadPoolExecutor(num_threads) as pool:
        return [damage for damages in pool.map(check, range(num_shards)) for damage in damages]


def _report(directory: Path, manifest: Manifest, damages: list[Damage]) -> VerifyReport:
    return VerifyReport(directory, len(manifest.shards), manifest.num_samples, manifest.num_bytes, tuple(damages))


def _verify_stored(url: Url, *, num_threads: int, progress: Callable[[int], object]) -> VerifyReport:
    """Check every object as :func:`verify_cache` does; needs disk space for `num_threads` shards and the index."""
    # Imports fsspec.
    from leukemia_data.stores.faults import MissingObjectError
    from leukemia_data.stores.object_store import open_store

    store = open_store(url)
    with TemporaryDirectory(prefix="ldata-verify-") as scratch:
        directory = Path(scratch)

        @contextmanager
        def fetched(name: str) -> Iterator[None]:
            # The check itself reports what is missing.
            with suppress(MissingObjectError):
                store.download(name, directory / name)
            try:
                yield
            finally:
                remove_file(directory / name)

        store.download(MANIFEST_NAME, directory / MANIFEST_NAME)
        with fetched(load_manifest(directory).index.name):
            report = verify_cache(directory, num_threads=num_threads, progress=progress, holding=fetched)
    return replace(report, directory=url)


def changed_shards(
    directory: Path, shards: Sequence[ShardEntry], *, num_threads: int, progress: Callable[[int], object]
) -> list[Damage]:
    """Find the shards whose size or digest differs from the manifest; `progress` is called with the bytes of each."""

    def check(number: int) -> list[Damage]:
        damages = _check_file(directory, shards[number])
        progress(shards[number].num_bytes)
        return damages

    return _check_all(check, len(shards), num_threads)


def _check_file(directory: Path, shard: ShardEntry, size_px: int | None = None) -> list[Damage]:
    """Damage of a shard's file: all its bytes, or with the images' `size_px` only those around the pixels."""
    path, problem = directory / shard.name, None
    try:
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            problem = f"has {num_bytes} bytes, the manifest says {shard.num_bytes}"
        elif size_px is None:
            if file_digest(path) != shard.digest:
                problem = "its bytes are not those that were written (digest differs)"
        # Manifests of version 1 lack that digest.
        elif shard.metadata_digest not in (None, metadata_digest(shard_images(directory, shard, size_px))):
            problem = "its header or its rows are not those that were written"
    except FileNotFoundError:
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read: {error}"
    return [] if problem is None else [Damage(shard.name, problem)]


def _check_manifest_and_index(directory: Path, manifest: Manifest) -> tuple[list[Damage], SampleTable | None]:
    """Damage of a readable manifest and its index, and the rows of an intact index."""
    problems = []
    expected = cache_fingerprint(manifest.recipe, manifest.size_px, manifest.library_versions.get("opencv", ""))
    if expected != manifest.fingerprint:
        problems.append("its fingerprint does not belong to its recipe, size and OpenCV release")
    if not is_as_written(directory):
        problems.append("its bytes are not those that were written, though they mean the same")
    damages = [Damage(MANIFEST_NAME, problem) for problem in problems]
    try:
        table = read_index(directory, manifest.index).table
        check_fit(directory, manifest, table)
    except CacheError as error:
        return [*damages, Damage(manifest.index.name, str(error))], None
    return damages, table


def _check_shard(directory: Path, manifest: Manifest, shard: ShardEntry, indexed: SampleTable | None) -> list[Damage]:
    images = shard_images(directory, shard, manifest.size_px, manifest.codec)
    found = _check_file(directory, shard)
    try:
        if found:
            # The images affected by the damage, if the file has its size.
            rows = intact_table(images) if indexed is None else indexed
            return found if rows is None or not is_whole(directory, shard) else [*found, *_check_pixels(images, rows)]
        # After the digest: HDF5 may hang or crash on damaged files.
        if open_images(images.path) != images:
            return [Damage(shard.name, "its images are of another shape or place than the manifest says")]
        table = read_table(images.path)
        if len(table) != shard.num_samples:
            return [Damage(shard.name, f"has {len(table)} rows, the manifest says {shard.num_samples}")]
        if indexed is not None and not table.equals(indexed):
            found = [Damage(shard.name, "its rows are not those of the index")]
        return [*found, *_check_pixels(images, table)]
    except (OSError, CacheError) as error:
        return [*found, Damage(shard.name, f"cannot be read: {error}")]


def _check_pixels(images: ShardImages, table: SampleTable) -> list[Damage]:
    bad = np.flatnonzero(~intact_images(images, table)).tolist()
    ids = tuple(table.take(bad).id_texts) if bad else ()
    return [Damage(images.path.name, f"{len(bad)} images fail their CRC", ids)] if bad else []


def intact_images(images: ShardImages, table: SampleTable) -> NDArray[np.bool_]:
    """Return which images of a shard match the CRC in its rows, shape (n,); other bytes are not checked.

    Raises
    ------
    CacheError
        If the file cannot be mapped.
    """
    rows = open_damaged_rows(images)
    return np.array([_has_crc(rows, row, crc) for row, crc in enumerate(table.crcs.tolist())], bool)


def _has_crc(rows: ShardRows, row: int, crc: int) -> bool:
    try:
        return zlib.crc32(rows[row].data) == crc
    except CacheError:
        # Undecodable.
        return False


def check_quickly(directory: Path, *, num_threads: int, progress: Callable[[int], object]) -> VerifyReport:
    """Check a cache as :func:`verify_cache` does, but of each shard only presence, size, header and rows."""
    manifest = load_manifest(directory)
    damages, _ = _check_manifest_and_index(directory, manifest)

    def check(number: int) -> list[Damage]:
        shard = manifest.shards[number]
        found = _check_file(directory, shard, manifest.size_px)
        progress(shard.num_samples)
        return found

    return _report(directory, manifest, damages + _check_all(check, len(manifest.shards), num_threads))
