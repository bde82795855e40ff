"""Mend a damaged cache: rebuild exactly the files that are damaged, byte for byte as they were.

A damaged shard is put together from the rows that the index repeats, the images in it whose CRC is still right, and
the source files of the others. Nothing is taken on trust: a source file must have the digest, and its preprocessed
pixels the CRC, that were recorded at the build. Where one image cannot be had, the shard stays as it is and the image
is named.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.index import SampleIndex, read_index, write_index
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest
from leukemia_data.caches.manifest_entries import ShardEntry
from leukemia_data.caches.shard import intact_table, read_table, shard_images, write_shard
from leukemia_data.caches.shard_rows import open_damaged_rows
from leukemia_data.caches.verify import VerifyReport, intact_images, verify_cache
from leukemia_data.errors import CacheError, ImageError
from leukemia_data.files.atomic import sync_directory, sync_file
from leukemia_data.files.lock import lock_cache
from leukemia_data.pixels.decode import decode_rgb
from leukemia_data.pixels.image_ops import Image
from leukemia_data.pixels.preprocess import Preprocessor
from leukemia_data.samples.file_states import states_array, unsettled_states
from leukemia_data.samples.fingerprint import bytes_digest, file_digest
from leukemia_data.samples.record import Record
from leukemia_data.samples.sample_table import SampleTable
from leukemia_data.sources.source_file import read_file

FindRecords = Callable[[], Sequence[Record] | None]
"""Lists the source when it is needed; None where there is no source."""

_NO_SOURCE = "no source was given"
_NOT_IN_SOURCE = "it is not in the source"
_CHANGED = "the source file has other bytes than when the cache was built"
_OTHER_PIXELS = "this installation makes other pixels of it than the one that built the cache"


@dataclass(frozen=True, slots=True)
class LostImage:
    """An image of a damaged shard that is intact neither there nor in the source, and why."""

    file: str
    record_id: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair found and did.

    Attributes
    ----------
    found, left
        The damage before the repair and after it, by two checks of every byte.
    mended
        Names of the files that are again as they were written.
    renewed
        Names of files whose content is right again in other bytes, because what wrote them was of another release, or
        because the source's file times are not known any more; the manifest names the new ones.
    lost
        The images because of which files are damaged still.
    num_unnamed
        Further lost images, in shards whose rows are damaged in the shard and in the index.
    num_kept, num_remade
        Images of the mended shards that were intact, and that were made from the source again.
    """

    found: VerifyReport
    left: VerifyReport
    mended: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    lost: tuple[LostImage, ...] = ()
    num_unnamed: int = 0
    num_kept: int = 0
    num_remade: int = 0


@dataclass(frozen=True, slots=True)
class _ShardRepair:
    """What became of one damaged shard; no entry where it could not be mended."""

    entry: ShardEntry | None
    num_kept: int = 0
    num_remade: int = 0
    lost: tuple[LostImage, ...] = ()
    num_unnamed: int = 0


def repair_cache(
    directory: Path, find_records: FindRecords, *, num_threads: int, progress: Callable[[int], None]
) -> RepairReport:
    """Check a cache and mend what is damaged.

    Parameters
    ----------
    directory
        The cache. No build or gc may be working on it.
    find_records
        Called once, if intact images alone do not do.
    num_threads
        Shards worked on at a time.
    progress
        Called with the number of samples of each checked shard.

    Raises
    ------
    CacheError
        If there is no readable manifest (then only a build helps), or another process writes to the cache.
    """
    # Before the lock, which would leave its file in a folder that is no cache.
    load_manifest(directory)
    with lock_cache(directory, "repair"):
        found = verify_cache(directory, num_threads=num_threads, progress=progress)
        if not found.damages:
            return RepairReport(found, found)
        try:
            return _Repair(directory, found, find_records).run(num_threads)
        except OSError as error:
            raise CacheError(f"{directory} cannot be mended: {error}; nothing of it is worse than before") from error


class _Source:
    """The images that are there, by id and by file name: a source may be given by another folder than at the build."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._by_id = {record.record_id: record for record in records}
        self._by_name: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            self._by_name[_file_name(record.record_id)].append(record)

    def candidates(self, record_id: str) -> list[Record]:
        """The record of this id, else all whose files have the same name."""
        record = self._by_id.get(record_id)
        return self._by_name.get(_file_name(record_id), []) if record is None else [record]

    def read(self, record_id: str, digest: bytes) -> NDArray[np.uint8]:
        """The bytes of the file that has this digest.

        Raises
        ------
        ImageError
            If there is none.
        """
        candidates = self.candidates(record_id)
        for record in candidates:
            data = read_file(record.path).data
            if bytes_digest(data) == digest:
                return data
        raise ImageError(_CHANGED if candidates else _NOT_IN_SOURCE)


def _file_name(record_id: str) -> str:
    return re.split(r"[/\\]", record_id)[-1]


class _Repair:
    """One repair of one cache, under its lock."""

    def __init__(self, directory: Path, found: VerifyReport, find_records: FindRecords) -> None:
        self._directory = directory
        self._manifest = load_manifest(directory)
        self._found = found
        self._damaged = {damage.file for damage in found.damages}
        self._find_records = find_records
        self._source: _Source | None = None
        self._index = self._read_index()
        self._rows = self._rows_of_shards()

    def run(self, num_threads: int) -> RepairReport:
        """Mend the shards, then the index, then the manifest that names them; and look again."""
        numbers = [n for n, shard in enumerate(self._manifest.shards) if self._has_other_bytes(shard)]
        intact = [self._intact(n) for n in numbers]
        if self._index is None or not all(rows.all() for rows in intact):
            records = self._find_records()
            self._source = None if records is None else _Source(records)
        with ThreadPoolExecutor(num_threads) as pool:
            repairs = dict(zip(numbers, pool.map(self._mend_shard, numbers, intact), strict=True))
        manifest = self._with_shards({n: repair.entry for n, repair in repairs.items()})
        if self._index is None:
            manifest = self._with_index(manifest)
        sync_directory(self._directory)
        if manifest != self._manifest or MANIFEST_NAME in self._damaged:
            save_manifest(self._directory, manifest)
        left = verify_cache(self._directory, num_threads=num_threads, progress=lambda _: None)
        return self._report(list(repairs.values()), manifest, left)

    def _has_other_bytes(self, shard: ShardEntry) -> bool:
        """Whether a damaged shard's bytes are not those the manifest knows: other contradictions are not its fault."""
        path = self._directory / shard.name
        return shard.name in self._damaged and (not path.is_file() or file_digest(path) != shard.digest)

    def _read_index(self) -> SampleIndex | None:
        """The index if it fits the manifest and is not among the damaged files."""
        if self._manifest.index.name in self._damaged:
            return None
        return read_index(self._directory, self._manifest.index)

    def _rows_of_shards(self) -> list[SampleTable | None]:
        """The rows of each shard: from the index, else from the shard where the bytes around its pixels are intact."""
        shards = self._manifest.shards
        if self._index is None:
            return [self._own_rows(shard) for shard in shards]
        ends = np.cumsum([shard.num_samples for shard in shards]).tolist()
        table = self._index.table
        return [table.take(np.arange(end - shard.num_samples, end)) for shard, end in zip(shards, ends, strict=True)]

    def _own_rows(self, shard: ShardEntry) -> SampleTable | None:
        if shard.name not in self._damaged:
            return read_table(self._directory / shard.name)
        return intact_table(shard_images(self._directory, shard, self._manifest.size_px))

    def _intact(self, number: int) -> NDArray[np.bool_]:
        """Which images of a damaged shard are as they were."""
        shard, rows = self._manifest.shards[number], self._rows[number]
        if rows is not None:
            try:
                return intact_images(shard_images(self._directory, shard, self._manifest.size_px), rows)
            except CacheError:
                # Absent or too short: nothing of it is used.
                pass
        return np.zeros(shard.num_samples, bool)

    def _mend_shard(self, number: int, intact_N: NDArray[np.bool_]) -> _ShardRepair:
        shard, rows, size_px = self._manifest.shards[number], self._rows[number], self._manifest.size_px
        if rows is None:
            return _ShardRepair(None, num_unnamed=shard.num_samples)
        images_NSSC = np.empty((len(rows), size_px, size_px, 3), np.uint8)
        if intact_N.any():
            damaged = open_damaged_rows(shard_images(self._directory, shard, size_px))
            for row in np.flatnonzero(intact_N).tolist():
                images_NSSC[row] = damaged[row].reshape(size_px, size_px, 3)
        preprocess = Preprocessor(self._manifest.recipe, [size_px])
        lost = []
        for row in np.flatnonzero(~intact_N).tolist():
            try:
                images_NSSC[row] = self._remake(rows.take([row]), preprocess)
            except ImageError as error:
                lost.append(_lost_image(shard.name, rows.take([row]), str(error)))
        if lost:
            return _ShardRepair(None, lost=tuple(lost))
        entry = write_shard(self._directory, images_NSSC, rows, self._manifest.fingerprint, self._manifest.codec)
        sync_file(self._directory / entry.name)
        return _ShardRepair(entry, int(intact_N.sum()), int((~intact_N).sum()))

    def _remake(self, row: SampleTable, preprocess: Preprocessor) -> Image:
        """Preprocess an image again; `row` is its one row.

        Raises
        ------
        ImageError
            If the source lacks it, holds other bytes under its name, or its pixels come out otherwise.
        """
        if self._source is None:
            raise ImageError(_NO_SOURCE)
        data = self._source.read(row.id_texts[0], row.source_digests[0].tobytes())
        image = preprocess(decode_rgb(data))[self._manifest.size_px]
        if zlib.crc32(image.data) != row.crcs[0]:
            made_by = self._manifest.library_versions
            raise ImageError(f"{_OTHER_PIXELS} (OpenCV {made_by.get('opencv')} on {made_by.get('machine')})")
        return image

    def _with_shards(self, entries: Mapping[int, ShardEntry | None]) -> Manifest:
        shards = tuple(entries.get(n) or shard for n, shard in enumerate(self._manifest.shards))
        return replace(self._manifest, shards=shards)

    def _with_index(self, manifest: Manifest) -> Manifest:
        """Write the index from the shards' rows; the manifest is unchanged if the bytes come out as they were."""
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
            (self._directory / entry.name).unlink()
        unsettled = write_index(self._directory, SampleIndex(table, unsettled_states(n)))
        return replace(manifest, index=unsettled, source_state=None)

    def _report(self, repairs: Sequence[_ShardRepair], manifest: Manifest, left: VerifyReport) -> RepairReport:
        settled = sorted(self._damaged - {damage.file for damage in left.damages})
        return RepairReport(
            found=self._found,
            left=left,
            mended=tuple(name for name in settled if name in manifest.file_names()),
            renewed=tuple(name for name in settled if name not in manifest.file_names()),
            lost=tuple(image for repair in repairs for image in repair.lost),
            num_unnamed=sum(repair.num_unnamed for repair in repairs),
            num_kept=sum(repair.num_kept for repair in repairs),
            num_remade=sum(repair.num_remade for repair in repairs),
        )


def _lost_image(file: str, row: SampleTable, reason: str) -> LostImage:
    return LostImage(file, row.id_texts[0], row.subject_texts[0], reason)
