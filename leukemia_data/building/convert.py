"""Store a cache's images by another codec: their pixels are copied and checked, none is preprocessed again.

The order of events is that of a build: new shards under names that tell their content, flushed to disk and read back,
then the manifest. Whoever stops before that leaves the cache as it was. Rows, index and fingerprint stay the same, and
the way back gives the same bytes as before.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import CODEC_LIBRARIES, codec_named
from leukemia_data.caches.index import check_fit, read_index
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest
from leukemia_data.caches.manifest_entries import ShardEntry
from leukemia_data.caches.shard import read_table, shard_bytes, shard_images, write_shard
from leukemia_data.caches.shard_rows import open_rows
from leukemia_data.caches.verify import intact_images
from leukemia_data.errors import CacheError
from leukemia_data.files.atomic import scratch_path, sync_directory, sync_file
from leukemia_data.files.lock import lock_cache
from leukemia_data.samples.fingerprint import file_digest
from leukemia_data.samples.sample_table import SampleTable, bytes_per_row

_CURE = "`ldata verify --repair` mends it"
# What an earlier conversion to the same folder may have left there.
_OWN_FILE = re.compile(r"(shard|index)-[0-9a-f]{16}\.h5|(shard|index)\.[0-9a-f]{12}\.partial|\.lock(-soft|-holder)?")


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """The cache before and after; both are the same where there was nothing to do."""

    directory: Path
    before: Manifest
    after: Manifest


def convert_cache(
    directory: Path,
    codec: str,
    *,
    out: Path | None = None,
    num_threads: int,
    progress: Callable[[int], None],
) -> ConvertReport:
    """Write a cache's shards anew by a codec, and commit them there or as a cache in another folder.

    Parameters
    ----------
    directory
        The cache.
    codec
        One of ``manifest_entries.CODECS``.
    out
        Folder of the new cache; None replaces the cache in its own, where the old shards stay until they are collected.
    num_threads
        Shards worked on at a time.
    progress
        Called with the number of samples of each shard that is done.

    Raises
    ------
    CacheError
        If the cache is damaged anywhere, another process writes to it, `out` holds other things, or there is too
        little room. The cache is then as it was.
    """
    before = load_manifest(directory)
    codec_named(before.codec), codec_named(codec)
    target = directory if out is None else out
    if out is not None:
        _check_free(out)
    with lock_cache(target, "convert"):
        before = load_manifest(directory)
        if out is None and before.codec == codec:
            return ConvertReport(directory, before, before)
        try:
            after = _Conversion(directory, target, before, codec).run(num_threads, progress)
        except OSError as error:
            raise CacheError(f"{target} cannot be written: {error}; {directory} is as it was") from error
    return ConvertReport(target, before, after)


def _check_free(out: Path) -> None:
    """Refuse a folder in which anything lies that is not left from an earlier conversion."""
    if out.is_dir() and all(_OWN_FILE.fullmatch(path.name) for path in out.iterdir()):
        return
    if out.exists():
        what = "a cache already" if (out / MANIFEST_NAME).exists() else "other files, or is one"
        raise CacheError(f"{out} holds {what}: name a folder that is new or empty")


class _Conversion:
    """One conversion, under the lock of its target."""

    def __init__(self, directory: Path, target: Path, manifest: Manifest, codec: str) -> None:
        self._directory, self._target = directory, target
        self._manifest, self._codec = manifest, codec

    def run(self, num_threads: int, progress: Callable[[int], None]) -> Manifest:
        """Write and check all shards, then commit."""
        table = read_index(self._directory, self._manifest.index).table
        check_fit(self._directory, self._manifest, table)
        self._check_room(bytes_per_row(table))

        def convert(entry: ShardEntry) -> ShardEntry:
            new = self._convert(entry)
            progress(entry.num_samples)
            return new

        with ThreadPoolExecutor(num_threads) as pool:
            shards = tuple(pool.map(convert, self._manifest.shards))
        self._copy_index()
        sync_directory(self._target)
        after = replace(self._manifest, shards=shards, codec=self._codec, library_versions=self._library_versions())
        save_manifest(self._target, after)
        return after

    def _check_room(self, row_bytes: int) -> None:
        size_px = self._manifest.size_px
        needed = sum(shard_bytes(e.num_samples, size_px, row_bytes, self._codec) for e in self._manifest.shards)
        free = shutil.disk_usage(self._target).free
        if needed > free:
            raise CacheError(f"not enough room at {self._target}: {needed:,} bytes are needed, {free:,} are free")

    def _convert(self, entry: ShardEntry) -> ShardEntry:
        images_NSSC, table = self._read(entry)
        new = write_shard(self._target, images_NSSC, table, self._manifest.fingerprint, self._codec)
        path = self._target / new.name
        sync_file(path)
        written = shard_images(self._target, new, self._manifest.size_px)
        if file_digest(path) != new.digest or not intact_images(written, table).all():
            raise CacheError(f"{path} does not read as it was written: the disk or the memory is at fault")
        return new

    def _read(self, entry: ShardEntry) -> tuple[NDArray[np.uint8], SampleTable]:
        """A shard's images and rows, each image with the CRC that its row tells."""
        path, size_px = self._directory / entry.name, self._manifest.size_px
        # Before HDF5, which may hang or crash on damaged files.
        if not path.is_file() or file_digest(path) != entry.digest:
            raise CacheError(f"{path} is missing or damaged, nothing was converted: {_CURE}")
        table, rows = read_table(path), open_rows(shard_images(self._directory, entry, size_px))
        images_NSSC = np.empty((entry.num_samples, size_px, size_px, 3), np.uint8)
        for row, (image, crc) in enumerate(zip(images_NSSC, table.crcs.tolist(), strict=True)):
            image[:] = rows[row].reshape(image.shape)
            if zlib.crc32(image.data) != crc:
                raise CacheError(f"{path}: image {table.take([row]).id_texts[0]} fails its CRC: {_CURE}")
        return images_NSSC, table

    def _copy_index(self) -> None:
        """The index knows nothing of codecs; its bytes stay."""
        entry = self._manifest.index
        if self._target == self._directory:
            return
        with scratch_path(self._target, "index") as scratch:
            shutil.copyfile(self._directory / entry.name, scratch)
            sync_file(scratch)
            scratch.replace(self._target / entry.name)
        if file_digest(self._target / entry.name) != entry.digest:
            raise CacheError(f"{self._target / entry.name} does not read as it was written")

    def _library_versions(self) -> dict[str, str]:
        """Those that made the pixels, and of what writes files those of today."""
        made_by = {name: v for name, v in self._manifest.library_versions.items() if name not in CODEC_LIBRARIES}
        written_by = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version}
        return {**made_by, **written_by, **codec_named(self._codec).library_versions}
