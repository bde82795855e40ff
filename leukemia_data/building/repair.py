"""Repair the damaged files of a cache, or convert its pixels to another codec."""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.codec import ZSTD, codec_named
from leukemia_data.caches.hdf5_file import SampleIndex, check_fit, read_index, write_index
from leukemia_data.caches.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardEntry,
    cache_summary,
    is_intact,
    load_manifest,
    save_manifest,
)
from leukemia_data.caches.opening import choose_folder
from leukemia_data.caches.shard import ShardImages, intact_table, read_table, shard_bytes, shard_images, write_shard
from leukemia_data.caches.shard_rows import open_damaged_rows, open_rows
from leukemia_data.caches.verify import VerifyReport, intact_images, verify_cache
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.decoding.decode import decode_rgb, read_file
from leukemia_data.errors import CacheError, ImageError, SourceError
from leukemia_data.files.atomic import remove_file, scratch_path, sync_directory, sync_file
from leukemia_data.files.lock import lock_cache
from leukemia_data.operations.operation import Image
from leukemia_data.operations.recipe import Preprocessor
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.records.record import ImagePlace, Record
from leukemia_data.records.sample_table import SampleTable, bytes_per_row, states_array, unsettled_states
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.stores.url import Location

_NO_REPAIR_THERE = "--repair is for folders; remove what is damaged and build again, which makes it anew"
_NO_CONVERSION_THERE = "conversion is for folders; `ldata pull` it, convert the copy, and `ldata push` that"
_CURE = "`ldata verify --repair` repairs it"


@dataclass(frozen=True, slots=True)
class LostImage:
    """An image that is intact neither in its shard nor in the source, and why."""

    file: str
    record_id: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Result of a repair.

    Attributes
    ----------
    found, left
        The damage before and after the repair; both checks read every byte.
    mended
        Names of files restored byte for byte.
    renewed
        Names of files restored with other bytes (other library releases, or lost file times of the source); the
        manifest names the new ones.
    lost
        Images that keep files damaged.
    num_unnamed
        Further lost images, in shards whose rows are damaged in the shard and in the index.
    num_kept, num_remade
        Images of the repaired shards that were intact, and that were made again from the source.
    """

    found: VerifyReport
    left: VerifyReport
    mended: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    lost: tuple[LostImage, ...] = ()
    num_unnamed: int = 0
    num_kept: int = 0
    num_remade: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "found": self.found.to_dict(), "left": self.left.to_dict()}


def repair(
    location: Location,
    sources: Sequence[ImagePlace] = (),
    *,
    find_sources: Callable[[str], Sequence[ImagePlace]] = lambda name: (),
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    size_px: int | None = None,
    num_threads: int | None = None,
    console: Console = NULL_CONSOLE,
) -> RepairReport:
    """Check a cache and repair damage from its intact parts, and from the source for the rest.

    Parameters
    ----------
    location
        A cache, or a folder with caches of which one is of the size. No build or gc may be working on it.
    sources
        Sources of the cache, read with its options.
    find_sources
        Given the cache's name, returns `sources` if none are given and the cache alone is not enough. If these are
        unreadable, a note is written instead of an error.
    root, allow_outside
        As for :func:`leukemia_data.sources.source.list_source`.
    num_threads
        Shards processed in parallel; None for one per core.

    Raises
    ------
    UsageError
        If several caches match, or `location` is an address.
    SourceError
        If the sources given cannot be read.
    CacheError
        If there is no readable manifest (then only a build helps), or another process writes to the cache.
    """
    directory, manifest = choose_folder(location, _NO_REPAIR_THERE, size_px=size_px)

    def find_records() -> Sequence[Record] | None:
        if sources:
            console.note(f"source: {', '.join(map(str, sources))} (given)")
        places = sources or find_sources(manifest.name)
        if not places:
            return None
        options = ReadingOptions.from_dict({} if manifest.reading is None else manifest.reading["options"])
        try:
            # Excluded folders may be gone by now.
            return list_source(
                places, root=root, allow_outside=allow_outside, options=options, allow_unmatched=True
            ).records
        except SourceError as error:
            if sources:
                raise
            console.note(f"note: {error}")
            return None

    with console.progress(manifest.num_samples, "verifying") as bar:
        return repair_cache(
            directory, find_records, num_threads=num_threads or os.cpu_count() or 1, progress=bar.update
        )


def repair_cache(
    directory: Path,
    find_records: Callable[[], Sequence[Record] | None],
    *,
    num_threads: int,
    progress: Callable[[int], object],
) -> RepairReport:
    """Check the cache in a directory and repair damage; raises CacheError as :func:`repair` does.

    `find_records` is called at most once, if the intact images are not enough, and returns None without a source.
    `progress` is called with the number of samples of each checked shard.
    """
    # Before locking, which would leave a lock file in a folder that is not a cache.
    load_manifest(directory)
    with lock_cache(directory, "repair"):
        found = verify_cache(directory, num_threads=num_threads, progress=progress)
        if not found.damages:
            return RepairReport(found, found)
        try:
            return _Repair(directory, found).run(find_records, num_threads)
        except OSError as error:
            raise CacheError(f"{directory} cannot be repaired: {error}; nothing of it is worse than before") from error


class _Source:
    """Records by id and by file name: the source may have moved to another folder since the build."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_id = {record.record_id: record for record in records}
        self._by_name: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            self._by_name[_file_name(record.record_id)].append(record)

    def candidates(self, record_id: str) -> list[Record]:
        """Return the record with this id, else all with the same file name."""
        record = self._by_id.get(record_id)
        return self._by_name.get(_file_name(record_id), []) if record is None else [record]

    def read(self, record_id: str, digest: bytes) -> NDArray[np.uint8]:
        """Return the bytes of the candidate file with this digest; raises ImageError if there is none."""
        candidates = self.candidates(record_id)
        for record in candidates:
            data = read_file(record.path).data
            if bytes_digest(data) == digest:
                return data
        changed = "the source file has other bytes than when the cache was built"
        raise ImageError(changed if candidates else "it is not in the source")


def _file_name(record_id: str) -> str:
    return re.split(r"[/\\]", record_id)[-1]


class _Repair:
    """One repair of one cache, under its lock."""

    def __init__(self, directory: Path, found: VerifyReport) -> None:
        self._directory = directory
        self._manifest = load_manifest(directory)
        self._found = found
        self._damaged = {damage.file for damage in found.damages}
        self._source: _Source | None = None
        is_indexed = self._manifest.index.name not in self._damaged
        self._index = read_index(directory, self._manifest.index) if is_indexed else None
        self._rows = self._rows_of_shards()

    def run(self, find_records: Callable[[], Sequence[Record] | None], num_threads: int) -> RepairReport:
        """Repair shards, index and manifest in this order, then verify again."""
        numbers = [
            n
            for n, shard in enumerate(self._manifest.shards)
            if shard.name in self._damaged and not is_intact(self._directory, shard)
        ]
        intact = [self._intact(n) for n in numbers]
        if self._index is None or not all(rows.all() for rows in intact):
            records = find_records()
            self._source = None if records is None else _Source(records)
        with ThreadPoolExecutor(num_threads) as pool:
            results = list(pool.map(self._repair_shard, numbers, intact))
        entries = {n: entry for n, (entry, _) in zip(numbers, results, strict=True) if entry is not None}
        manifest = self._commit(entries)
        left = verify_cache(self._directory, num_threads=num_threads, progress=lambda _: None)
        settled = sorted(self._damaged - {damage.file for damage in left.damages})
        repaired = [rows for n, rows in zip(numbers, intact, strict=True) if n in entries]
        return RepairReport(
            found=self._found,
            left=left,
            mended=tuple(name for name in settled if name in manifest.file_names()),
            renewed=tuple(name for name in settled if name not in manifest.file_names()),
            lost=tuple(image for _, lost in results for image in lost),
            num_unnamed=sum(self._manifest.shards[n].num_samples for n in numbers if self._rows[n] is None),
            num_kept=sum(int(rows.sum()) for rows in repaired),
            num_remade=sum(int((~rows).sum()) for rows in repaired),
        )

    def _commit(self, entries: Mapping[int, ShardEntry]) -> Manifest:
        """Write index and manifest if they were damaged or their content changed."""
        shards = tuple(entries.get(n, shard) for n, shard in enumerate(self._manifest.shards))
        manifest = replace(self._manifest, shards=shards)
        if self._index is None:
            manifest = self._with_index(manifest)
        sync_directory(self._directory)
        if manifest != self._manifest or MANIFEST_NAME in self._damaged:
            save_manifest(self._directory, manifest)
        return manifest

    def _images(self, shard: ShardEntry) -> ShardImages:
        return shard_images(self._directory, shard, self._manifest.size_px, self._manifest.codec)

    def _rows_of_shards(self) -> list[SampleTable | None]:
        """The rows of each shard: from the index, else from the shard if the bytes around its pixels are intact."""
        shards = self._manifest.shards
        if self._index is None:
            return [
                intact_table(self._images(shard))
                if shard.name in self._damaged
                else read_table(self._directory / shard.name)
                for shard in shards
            ]
        ends = np.cumsum([shard.num_samples for shard in shards]).tolist()
        table = self._index.table
        return [table.take(np.arange(end - shard.num_samples, end)) for shard, end in zip(shards, ends, strict=True)]

    def _intact(self, number: int) -> NDArray[np.bool_]:
        """Which images of a damaged shard are intact; none of a missing or truncated one."""
        shard, rows = self._manifest.shards[number], self._rows[number]
        if rows is not None:
            with suppress(CacheError):
                return intact_images(self._images(shard), rows)
        return np.zeros(shard.num_samples, bool)

    def _repair_shard(self, number: int, intact_N: NDArray[np.bool_]) -> tuple[ShardEntry | None, list[LostImage]]:
        """Write a shard again; return its entry, or None and the images that are lost."""
        shard, rows, size_px = self._manifest.shards[number], self._rows[number], self._manifest.size_px
        lost: list[LostImage] = []
        if rows is None:
            return None, lost
        images_NSSC = np.empty((len(rows), size_px, size_px, 3), np.uint8)
        if intact_N.any():
            damaged = open_damaged_rows(self._images(shard))
            for row in np.flatnonzero(intact_N).tolist():
                images_NSSC[row] = damaged[row].reshape(size_px, size_px, 3)
        preprocess = Preprocessor(self._manifest.recipe, [size_px])
        for row in np.flatnonzero(~intact_N).tolist():
            one = rows.take([row])
            try:
                images_NSSC[row] = self._remake(one, preprocess)
            except ImageError as error:
                lost.append(LostImage(shard.name, one.id_texts[0], one.subject_texts[0], str(error)))
        if lost:
            return None, lost
        entry = write_shard(self._directory, images_NSSC, rows, self._manifest.fingerprint, self._manifest.codec)
        sync_file(self._directory / entry.name)
        return entry, lost

    def _remake(self, row: SampleTable, preprocess: Preprocessor) -> Image:
        """Preprocess an image again; `row` is its one-row table.

        Raises ImageError if the source lacks it or has other bytes under its name, or its pixels are not the cached
        ones.
        """
        if self._source is None:
            raise ImageError("no source was given")
        data = self._source.read(row.id_texts[0], row.source_digests[0].tobytes())
        image = preprocess(decode_rgb(data))[self._manifest.size_px]
        if zlib.crc32(image.data) != row.crcs[0]:
            made_by = self._manifest.library_versions
            raise ImageError(
                "this installation makes other pixels of it than the one that built the cache "
                f"(OpenCV {made_by.get('opencv')} on {made_by.get('machine')})"
            )
        return image

    def _with_index(self, manifest: Manifest) -> Manifest:
        """Write the index from the shards' rows; the manifest changes only if the bytes do."""
        known = [rows for rows in self._rows if rows is not None]
        if len(known) < len(self._rows):
            return manifest
        table = SampleTable.concatenate(known)
        n = len(table)
        candidates = [self._source.candidates(record_id) if self._source else [] for record_id in table.id_texts]
        found = [records[0] for records in candidates if records]
        if len(found) == n:
            states = states_array((record.state for record in found), n)
            entry = write_index(self._directory, SampleIndex(table, states))
            if entry == manifest.index:
                return manifest
            remove_file(self._directory / entry.name)
        unsettled = write_index(self._directory, SampleIndex(table, unsettled_states(n)))
        return replace(manifest, index=unsettled, source_state=None)


# Leftovers of an interrupted conversion to the same folder.
_OWN_FILE = re.compile(r"(shard|index)-[0-9a-f]{16}\.h5|(shard|index)\.[0-9a-f]{12}\.partial|\.lock(-soft|-holder)?")


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """The cache before and after; equal if there was nothing to do."""

    directory: Path
    before: Manifest
    after: Manifest

    @property
    def is_changed(self) -> bool:
        """Whether anything was written."""
        return self.after is not self.before

    def to_dict(self) -> dict[str, object]:
        """Return the new cache and the changes as JSON values."""
        return {
            **cache_summary(self.directory, self.after),
            "changed": self.is_changed,
            "num_bytes_before": self.before.num_bytes,
        }


def convert(
    location: Location,
    codec: str = ZSTD,
    *,
    out: Path | None = None,
    size_px: int | None = None,
    num_threads: int | None = None,
    console: Console = NULL_CONSOLE,
) -> ConvertReport:
    """Rewrite a cache's shards with another lossless codec, in place or as a new cache; pixels stay equal.

    Parameters
    ----------
    location
        A cache, or a folder with caches of which one is of the size.
    out
        Folder of the new cache; None converts in place, and leaves the old shards to garbage collection.
    num_threads
        Shards processed in parallel; None for one per core.

    Raises
    ------
    UsageError
        If several caches match, or `location` is an address.
    CacheError
        If the cache is damaged, another process writes to it, `out` is not empty, or there is too little room. The
        cache is unchanged then.
    """
    directory, before = choose_folder(location, _NO_CONVERSION_THERE, size_px=size_px)
    codec_named(before.codec), codec_named(codec)
    target = directory if out is None else out
    if out is not None:
        _check_free(out)
    with console.progress(before.num_samples, "converting") as bar, lock_cache(target, "convert"):
        before = load_manifest(directory)
        if out is None and before.codec == codec:
            return ConvertReport(directory, before, before)
        try:
            after = _Conversion(directory, target, before, codec).run(num_threads or os.cpu_count() or 1, bar.update)
        except OSError as error:
            raise CacheError(f"{target} cannot be written: {error}; {directory} is as it was") from error
    return ConvertReport(target, before, after)


def _check_free(out: Path) -> None:
    """Raise CacheError if a folder holds anything but leftovers of an interrupted conversion."""
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

    def run(self, num_threads: int, progress: Callable[[int], object]) -> Manifest:
        """Write and check all shards, then commit."""
        table = read_index(self._directory, self._manifest.index).table
        check_fit(self._directory, self._manifest, table)
        size_px, row_bytes = self._manifest.size_px, bytes_per_row(table)
        needed = sum(shard_bytes(e.num_samples, size_px, row_bytes, self._codec) for e in self._manifest.shards)
        free = shutil.disk_usage(self._target).free
        if needed > free:
            raise CacheError(f"not enough room at {self._target}: {needed:,} bytes are needed, {free:,} are free")

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

    def _convert(self, entry: ShardEntry) -> ShardEntry:
        images_NSSC, table = self._read(entry)
        new = write_shard(self._target, images_NSSC, table, self._manifest.fingerprint, self._codec)
        path = self._target / new.name
        sync_file(path)
        written = shard_images(self._target, new, self._manifest.size_px, self._codec)
        if not is_intact(self._target, new) or not intact_images(written, table).all():
            raise CacheError(f"{path} does not read as it was written: the disk or the memory is at fault")
        return new

    def _read(self, entry: ShardEntry) -> tuple[NDArray[np.uint8], SampleTable]:
        """Return a shard's images and rows, after checking the CRC of each image."""
        path, size_px = self._directory / entry.name, self._manifest.size_px
        # Before HDF5, which may hang or crash on damaged files.
        if not is_intact(self._directory, entry):
            raise CacheError(f"{path} is missing or damaged, nothing was converted: {_CURE}")
        table, rows = read_table(path), open_rows(shard_images(self._directory, entry, size_px, self._manifest.codec))
        images_NSSC = np.empty((entry.num_samples, size_px, size_px, 3), np.uint8)
        for row, (image, crc) in enumerate(zip(images_NSSC, table.crcs.tolist(), strict=True)):
            image[:] = rows[row].reshape(image.shape)
            if zlib.crc32(image.data) != crc:
                raise CacheError(f"{path}: image {table.take([row]).id_texts[0]} fails its CRC: {_CURE}")
        return images_NSSC, table

    def _copy_index(self) -> None:
        """Copy the index, which does not depend on the codec."""
        entry = self._manifest.index
        if self._target == self._directory:
            return
        with scratch_path(self._target, "index") as scratch:
            shutil.copyfile(self._directory / entry.name, scratch)
            sync_file(scratch)
            scratch.replace(self._target / entry.name)
        if not is_intact(self._target, entry):
            raise CacheError(f"{self._target / entry.name} does not read as it was written")

    def _library_versions(self) -> dict[str, str]:
        """Earlier releases of what made the pixels, current ones of what writes files."""
        of_codec = codec_named(self._manifest.codec).library_versions
        made_by = {name: v for name, v in self._manifest.library_versions.items() if name not in of_codec}
        written_by = {"h5py": h5py.__version__, "hdf5": h5py.version.hdf5_version}
        return {**made_by, **written_by, **codec_named(self._codec).library_versions}
