"""Run a shard task: read, preprocess or copy its images, write its shards, and upload them to a store if needed."""

from __future__ import annotations

import json
import socket
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import starmap
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.shard_task import (
    RECEIPTS_DIR,
    PriorSample,
    ShardResult,
    ShardTask,
    Target,
    TaskRunner,
    find_receipts,
    leave_receipts,
    receipt_path,
)
from leukemia_data.caches.manifest import QuarantinedImage, ShardEntry
from leukemia_data.caches.shard import open_images, read_table, shard_name, write_shard
from leukemia_data.caches.shard_rows import ShardRows, open_rows
from leukemia_data.caches.statistics import channel_moments
from leukemia_data.decoding.decode import SourceFile, decode_rgb, frame_digest, one_opencv_thread, read_record
from leukemia_data.decoding.look import image_look
from leukemia_data.errors import BuildError, CacheError, ImageError, StorageError
from leukemia_data.files.atomic import scratch_folder
from leukemia_data.operations.operation import Image
from leukemia_data.operations.recipe import Preprocessor
from leukemia_data.records.fingerprint import bytes_digest, cache_fingerprint, file_digest, installed_opencv_version
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.stores.faults import MissingObjectError

# Fetch an earlier shard if it may hold at least an eighth of the images.
_ENOUGH_ALIKE = 8


def _run_stored(task: ShardTask) -> ShardResult:
    """Run a task whose targets are all in object stores, in local folders that get the results of an earlier run."""
    with scratch_folder("ldata-shard-") as scratch:
        local = replace(task, targets=tuple(_in_folder(target, scratch) for target in task.targets))
        if not all(_fetch_finished(task, target) for target in local.targets):
            _fetch_earlier(task, local)
        result = _make_or_find(local)
        for target in local.targets:
            if target.size_px in result.entries:
                _upload(task, target, result)
    return result


def _in_folder(target: Target, scratch: Path) -> Target:
    directory = scratch / str(target.size_px)
    directory.mkdir()
    return replace(target, directory=directory)


def _fetch_finished(task: ShardTask, target: Target) -> bool:
    """Download the receipt and shard of an earlier run, and return whether both exist. They are checked when used."""
    if target.stored_at is None:
        return False
    path, store = receipt_path(task, target), target.stored_at.store
    try:
        data = store.read(f"{RECEIPTS_DIR}/{path.name}")
        name = Path(str(json.loads(data)["shard"]["name"])).name
        store.download(name, target.directory / name)
    except (MissingObjectError, ValueError, TypeError, KeyError):
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return True


def _fetch_earlier(task: ShardTask, local: ShardTask) -> None:
    """Download the earlier shards to copy images from; images of missing ones are made from the source."""
    for target in local.targets:
        for name in _shards_to_fetch(task, target.size_px):
            if target.stored_at is not None:
                with suppress(MissingObjectError):
                    target.stored_at.store.download(name, target.directory / name)


def _shards_to_fetch(task: ShardTask, size_px: int) -> list[str]:
    """Shards with unchanged images, or with so many candidates that downloading is cheaper than preprocessing."""
    unchanged = {sample.rows[size_px][0] for sample in task.unchanged.values() if size_px in sample.rows}
    alike = Counter(sample.rows[size_px][0] for sample in task.by_digest.values() if size_px in sample.rows)
    return sorted(unchanged | {name for name, count in alike.items() if _ENOUGH_ALIKE * count >= len(task.records)})


def _upload(task: ShardTask, target: Target, result: ShardResult) -> None:
    if target.stored_at is None:
        raise StorageError(f"the {target.size_px} px cache has no address, others of the same build do")
    store, entry = target.stored_at.store, result.entries[target.size_px]
    # Even if it exists already: gc removes old objects that no manifest names yet.
    store.upload(entry.name, target.directory / entry.name)
    receipt = receipt_path(task, target)
    if receipt.is_file():
        store.write(f"{RECEIPTS_DIR}/{receipt.name}", receipt.read_bytes())


# Columns of a row that are not in a listing.
_OF_PIXELS = ("channel_sums", "channel_square_sums", "crcs", "source_digests", "pixel_digests", "looks")
_FILES_AHEAD = 2
# Latency dominates reads from a store: keep many in flight.
_OBJECTS_AHEAD = 24


def run_task(task: ShardTask) -> ShardResult:
    """Make the shards of a task, or find them finished.

    Unusable images are returned as failures, never raised: the commit applies the failure policy.

    Raises
    ------
    OSError
        If a shard cannot be written.
    BuildError
        If memory runs out, or the OpenCV release differs from the planned one.
    StorageError
        If a store that holds images or caches cannot be reached.
    """
    _check_fingerprints(task)
    is_stored = any(target.stored_at is not None for target in task.targets)
    try:
        # One thread per worker: the workers are the parallelism.
        with one_opencv_thread():
            return _run_stored(task) if is_stored else _make_or_find(task)
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise
        sizes = " and ".join(str(target.size_px) for target in task.targets)
        raise BuildError(
            f"not enough memory for a shard of {len(task.records)} images at {sizes} px: fewer --n-jobs need less, "
            "so does one --size at a time; build again, it goes on where it stopped"
        ) from error


def _check_fingerprints(task: ShardTask) -> None:
    """Raise BuildError if this worker's OpenCV release does not match the caches' fingerprints."""
    opencv = installed_opencv_version()
    for target in task.targets:
        if cache_fingerprint(task.recipe, target.size_px, opencv) != target.fingerprint:
            raise BuildError(
                f"OpenCV {opencv} on {socket.gethostname()} is not the release that {target.directory} is made with: "
                "install the same on every machine that takes part"
            )


def _make_or_find(task: ShardTask) -> ShardResult:
    return find_receipts(task) or _ShardMaker(task).make()


def run_numbered(position: int, task: ShardTask) -> tuple[int, ShardResult]:
    """Run a task and return its position and result; engines submit this to their workers."""
    return position, run_task(task)


def run_serially(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
    """Run tasks in this process, one after the other."""
    return starmap(run_numbered, enumerate(tasks))


class _SerialEngine:
    """Runs tasks in this process; see :class:`leukemia_data.building.engine.Engine`."""

    name = "serial"

    def check(self, address: str | None, n_jobs: int) -> None:
        """Accept everything."""

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        return run_serially


SERIAL = _SerialEngine()


class _ShardMaker:
    """Collects the images and rows of one task."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._sizes = tuple(target.size_px for target in task.targets)
        self._preprocess = Preprocessor(task.recipe, self._sizes)
        self._prior_shards = _PriorShards({target.size_px: target.directory for target in task.targets})
        n = len(task.records)
        self._images = {size: np.empty((n, size, size, 3), np.uint8) for size in self._sizes}
        self._tables = {size: SampleTable.from_records(task.records) for size in self._sizes}
        self._file_states = np.empty((n, 4), np.int64)
        self._num_copied = 0

    def make(self) -> ShardResult:
        kept: list[int] = []
        failures: list[QuarantinedImage] = []
        for row, record, source in self._read_ahead():
            try:
                self._fill(row, record, source)
            except ImageError as error:
                failures.append(QuarantinedImage(record.record_id, str(error)))
            else:
                kept.append(row)
        tables = {size: table.take(kept) for size, table in self._tables.items()}
        entries = self._write(kept, tables) if kept else {}
        result = ShardResult(
            entries=entries,
            tables=tables,
            source_states=self._file_states[kept],
            failures=tuple(failures),
            num_processed=len(kept) - self._num_copied,
            num_copied=self._num_copied,
            num_records=len(self._task.records),
        )
        leave_receipts(self._task, result)
        return result

    def _read_ahead(self) -> Iterator[tuple[int, Record, Future[SourceFile] | None]]:
        """Yield each record with its file, read ahead by threads; None if it is not needed."""
        is_local = all(isinstance(record.path, Path) for record in self._task.records)
        num_ahead = _FILES_AHEAD if is_local else _OBJECTS_AHEAD
        with ThreadPoolExecutor(max_workers=1 if is_local else num_ahead) as reader:
            waiting: deque[tuple[int, Record, Future[SourceFile] | None]] = deque()
            for row, record in enumerate(self._task.records):
                is_unchanged = record.record_id in self._task.unchanged
                waiting.append((row, record, None if is_unchanged else reader.submit(read_record, record)))
                if len(waiting) > num_ahead:
                    yield waiting.popleft()
            yield from waiting

    def _fill(self, row: int, record: Record, source: Future[SourceFile] | None) -> None:
        prior = self._task.unchanged.get(record.record_id)
        if prior is not None and self._copy(row, prior):
            self._file_states[row] = record.state
            return
        file = read_record(record) if source is None else source.result()
        self._file_states[row] = file.state
        digest = bytes_digest(file.data)
        prior = self._task.by_digest.get(digest)
        if prior is None or not self._copy(row, prior):
            self._process(row, file.data, digest)

    def _copy(self, row: int, prior: PriorSample) -> bool:
        """Copy pixels and sums from earlier shards; return False if one is missing or damaged."""
        found = {size: self._prior_shards.sample(size, prior) for size in self._sizes}
        samples = {size: sample for size, sample in found.items() if sample is not None}
        if len(samples) < len(found):
            return False
        for size, (image, source) in samples.items():
            self._images[size][row] = image
            for name in _OF_PIXELS:
                getattr(self._tables[size], name)[row] = getattr(source, name)[0]
        self._num_copied += 1
        return True

    def _process(self, row: int, data: NDArray[np.uint8], digest: bytes) -> None:
        frame = decode_rgb(data)
        pixel_digest, look = frame_digest(frame), image_look(frame)
        for size, image in self._preprocess(frame).items():
            self._images[size][row] = image
            table = self._tables[size]
            table.channel_sums[row], table.channel_square_sums[row] = channel_moments(image)
            table.crcs[row] = zlib.crc32(image.data)
            table.source_digests[row] = np.frombuffer(digest, np.uint8)
            table.pixel_digests[row] = np.frombuffer(pixel_digest, np.uint8)
            table.looks[row] = look

    def _write(self, kept: Sequence[int], tables: Mapping[int, SampleTable]) -> dict[int, ShardEntry]:
        entries = {}
        for target in self._task.targets:
            images = self._images[target.size_px]
            chosen = images if len(kept) == len(images) else images[np.asarray(kept)]
            table = tables[target.size_px]
            entries[target.size_px] = write_shard(target.directory, chosen, table, target.fingerprint, target.codec)
        return entries


class _PriorShards:
    """Pixels and rows of earlier shards, each opened once."""

    def __init__(self, directories: Mapping[int, Path]) -> None:
        self._directories = directories
        self._opened: dict[Path, tuple[ShardRows, SampleTable] | None] = {}

    def sample(self, size_px: int, prior: PriorSample) -> tuple[Image, SampleTable] | None:
        """Return the image and one-row table of a sample, or None if missing or damaged."""
        if size_px not in prior.rows:
            return None
        shard_name, row = prior.rows[size_px]
        opened = self._open(self._directories[size_px] / shard_name, size_px)
        if opened is None or row >= len(opened[1]):
            return None
        try:
            return opened[0][row].reshape(size_px, size_px, 3), opened[1].take([row])
        except CacheError:
            return None

    def _open(self, path: Path, size_px: int) -> tuple[ShardRows, SampleTable] | None:
        """Open a shard if its digest matches its name: HDF5 may crash on damaged files."""
        if path not in self._opened:
            self._opened[path] = None
            with suppress(CacheError, OSError):
                if shard_name(file_digest(path)) == path.name:
                    images, table = open_images(path), read_table(path)
                    if images.shape == (len(table), size_px, size_px, 3):
                        self._opened[path] = open_rows(images), table
        return self._opened[path]
