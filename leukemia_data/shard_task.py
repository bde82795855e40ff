"""One shard's work: a pure function of a task to files, for any worker on any engine.

A task names the records of one shard, the caches (one per size) that lack it, and the samples of earlier shards whose
pixels may be copied. Running it reads and preprocesses what is new, writes one shard per cache and leaves a receipt.
Running it again finds the receipt and costs nothing, which is how a killed build resumes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.atomic import scratch_path
from leukemia_data.decode import decode_rgb
from leukemia_data.errors import CacheError, ImageError
from leukemia_data.fingerprint import bytes_digest, file_digest, lines_digest
from leukemia_data.image_ops import Image
from leukemia_data.manifest import QuarantinedImage, ShardEntry
from leukemia_data.moments import channel_moments
from leukemia_data.preprocess import Preprocessor
from leukemia_data.recipe import Recipe
from leukemia_data.record import Record
from leukemia_data.samples import SampleTable
from leukemia_data.shard import open_images, read_table, shard_name, write_shard

RECEIPTS_DIR = "receipts"


@dataclass(frozen=True, slots=True)
class Target:
    """A cache under construction: its size, identity and directory."""

    size_px: int
    fingerprint: str
    directory: Path


@dataclass(frozen=True, slots=True)
class PriorSample:
    """Where an earlier build left a sample: per size, the shard and the row in it."""

    source_digest: bytes
    rows: Mapping[int, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """All that is needed to make one shard of one or several caches.

    Attributes
    ----------
    records
        Images of the shard in sample order.
    targets
        Caches that lack this shard.
    recipe
        What to do to each image.
    unchanged
        By record id: samples whose files have not changed since they were cached.
    by_digest
        By digest of the source file: samples that may turn out to be the same image.
    """

    records: tuple[Record, ...]
    targets: tuple[Target, ...]
    recipe: Recipe
    unchanged: Mapping[str, PriorSample] = field(default_factory=dict)
    by_digest: Mapping[bytes, PriorSample] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identity of the task's work: the metadata and file states of its records."""
        return lines_digest(
            json.dumps([r.record_id, r.label, r.subject, r.split, r.fold, r.size_bytes, r.mtime_ns])
            for r in self.records
        )


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a task made.

    Attributes
    ----------
    entries
        Per size, the shard; empty when no image of the task was usable.
    tables
        Per size, the rows of the shard.
    source_sizes_bytes, source_mtimes_ns : ndarray of shape (n,), int64
        State of each row's file when it was read.
    failures
        Images left out, with reasons.
    num_processed, num_copied
        Images that were decoded and preprocessed, and images whose pixels an earlier shard held.
    num_records
        Images the task was given.
    """

    entries: Mapping[int, ShardEntry]
    tables: Mapping[int, SampleTable]
    source_sizes_bytes: NDArray[np.int64]
    source_mtimes_ns: NDArray[np.int64]
    failures: tuple[QuarantinedImage, ...]
    num_processed: int
    num_copied: int
    num_records: int


def run_task(task: ShardTask) -> ShardResult:
    """Make the shards of a task, or find them made.

    Unusable images are returned as failures, never raised: whoever commits decides about them.

    Raises
    ------
    OSError
        If a shard cannot be written.
    """
    return _find_receipts(task) or _ShardMaker(task).make()


def read_file(path: Path) -> tuple[NDArray[np.uint8], int, int]:
    """Read a whole file: its bytes, size and modification time (ns) as they were when it was opened.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = np.fromfile(file, np.uint8)
    except (OSError, ValueError) as error:
        reason = "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise ImageError(reason) from error
    return data, status.st_size, status.st_mtime_ns


class _ShardMaker:
    """Collects the images and rows of one task."""

    def __init__(self, task: ShardTask) -> None:
        # One thread per worker: the workers are the parallelism.
        cv2.setNumThreads(1)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._task = task
        self._sizes = tuple(target.size_px for target in task.targets)
        self._preprocess = Preprocessor(task.recipe, self._sizes)
        self._prior_shards = _PriorShards({target.size_px: target.directory for target in task.targets})
        n = len(task.records)
        self._images = {size: np.empty((n, size, size, 3), np.uint8) for size in self._sizes}
        self._tables = {size: SampleTable.from_records(task.records) for size in self._sizes}
        self._file_states = np.empty((n, 2), np.int64)
        self._num_copied = 0

    def make(self) -> ShardResult:
        kept: list[int] = []
        failures: list[QuarantinedImage] = []
        for row, record in enumerate(self._task.records):
            try:
                self._fill(row, record)
            except ImageError as error:
                failures.append(QuarantinedImage(record.record_id, str(error)))
            else:
                kept.append(row)
        tables = {size: table.take(kept) for size, table in self._tables.items()}
        entries = self._write(kept, tables) if kept else {}
        states = self._file_states[kept]
        result = ShardResult(
            entries=entries,
            tables=tables,
            source_sizes_bytes=states[:, 0].copy(),
            source_mtimes_ns=states[:, 1].copy(),
            failures=tuple(failures),
            num_processed=len(kept) - self._num_copied,
            num_copied=self._num_copied,
            num_records=len(self._task.records),
        )
        if not failures:
            _leave_receipts(self._task, result)
        return result

    def _fill(self, row: int, record: Record) -> None:
        prior = self._task.unchanged.get(record.record_id)
        if prior is not None and self._copy(row, prior):
            self._file_states[row] = record.size_bytes, record.mtime_ns
            return
        data, size_bytes, mtime_ns = read_file(record.path)
        self._file_states[row] = size_bytes, mtime_ns
        digest = bytes_digest(data)
        prior = self._task.by_digest.get(digest)
        if prior is None or not self._copy(row, prior):
            self._process(row, data, digest)

    def _copy(self, row: int, prior: PriorSample) -> bool:
        """Take pixels and sums from earlier shards; False where one lacks them or holds damaged ones."""
        found = [self._prior_shards.sample(size, prior) for size in self._sizes]
        if any(sample is None for sample in found):
            return False
        for size, sample in zip(self._sizes, found, strict=True):
            if sample is not None:
                image, source = sample
                self._images[size][row] = image
                table = self._tables[size]
                for name in ("channel_sums", "channel_square_sums", "crcs", "source_digests", "pixel_digests"):
                    getattr(table, name)[row] = getattr(source, name)[0]
        self._num_copied += 1
        return True

    def _process(self, row: int, data: NDArray[np.uint8], digest: bytes) -> None:
        frame = decode_rgb(data)
        pixel_digest = bytes_digest(np.array(frame.shape, "<i8").tobytes() + bytes_digest(np.ascontiguousarray(frame)))
        for size, image in self._preprocess(frame).items():
            self._images[size][row] = image
            table = self._tables[size]
            table.channel_sums[row], table.channel_square_sums[row] = channel_moments(image)
            table.crcs[row] = zlib.crc32(image.data)
            table.source_digests[row] = np.frombuffer(digest, np.uint8)
            table.pixel_digests[row] = np.frombuffer(pixel_digest, np.uint8)

    def _write(self, kept: Sequence[int], tables: Mapping[int, SampleTable]) -> dict[int, ShardEntry]:
        entries = {}
        for target in self._task.targets:
            images = self._images[target.size_px]
            chosen = images if len(kept) == len(images) else images[np.asarray(kept)]
            entries[target.size_px] = write_shard(target.directory, chosen, tables[target.size_px], target.fingerprint)
        return entries


class _PriorShards:
    """Pixels and rows of earlier shards, each opened once."""

    def __init__(self, directories: Mapping[int, Path]) -> None:
        self._directories = directories
        self._opened: dict[Path, tuple[NDArray[np.uint8], SampleTable] | None] = {}

    def sample(self, size_px: int, prior: PriorSample) -> tuple[Image, SampleTable] | None:
        """Image and one-row table of a sample, or None where they are absent or damaged."""
        if size_px not in prior.rows:
            return None
        shard_name, row = prior.rows[size_px]
        opened = self._open(self._directories[size_px] / shard_name)
        if opened is None or row >= len(opened[1]):
            return None
        image = np.asarray(opened[0][row])
        return (image, opened[1].take([row])) if image.shape == (size_px, size_px, 3) else None

    def _open(self, path: Path) -> tuple[NDArray[np.uint8], SampleTable] | None:
        """A shard whose bytes are those that its name tells. Damaged ones are not shown to HDF5: it may crash."""
        if path not in self._opened:
            try:
                is_intact = shard_name(file_digest(path)) == path.name
                self._opened[path] = (open_images(path).map(), read_table(path)) if is_intact else None
            except (CacheError, OSError):
                self._opened[path] = None
        return self._opened[path]


def _receipt_path(task: ShardTask, target: Target) -> Path:
    return target.directory / RECEIPTS_DIR / f"{task.key}.json"


def _leave_receipts(task: ShardTask, result: ShardResult) -> None:
    states = {"sizes": result.source_sizes_bytes.tolist(), "mtimes": result.source_mtimes_ns.tolist()}
    for target in task.targets:
        path = _receipt_path(task, target)
        path.parent.mkdir(exist_ok=True)
        with scratch_path(path.parent, path.name) as scratch:
            scratch.write_text(
                json.dumps({"shard": asdict(result.entries[target.size_px]), **states}), encoding="utf-8"
            )
            scratch.replace(path)


def _find_receipts(task: ShardTask) -> ShardResult | None:
    """The result of an earlier run of this task, if its shards are whole on disk."""
    entries: dict[int, ShardEntry] = {}
    tables: dict[int, SampleTable] = {}
    sizes, mtimes = np.empty(0, np.int64), np.empty(0, np.int64)
    for target in task.targets:
        try:
            receipt = json.loads(_receipt_path(task, target).read_text(encoding="utf-8"))
            entry = ShardEntry(**receipt["shard"])
            path = target.directory / entry.name
            if file_digest(path) != entry.digest:
                return None
            tables[target.size_px] = read_table(path)
        except (OSError, ValueError, TypeError, KeyError, CacheError):
            return None
        entries[target.size_px] = entry
        sizes, mtimes = np.array(receipt["sizes"], np.int64), np.array(receipt["mtimes"], np.int64)
    n = len(task.records)
    return ShardResult(entries, tables, sizes, mtimes, (), num_processed=0, num_copied=n, num_records=n)
