"""Samples for other loops: random access for a DataLoader, and batches of image files outside of caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import index
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from leukemia_data.decoding.decode import decode_rgb, frame_digest, read_file
from leukemia_data.decoding.look import image_look
from leukemia_data.errors import ImageError
from leukemia_data.operations.operation import Image
from leukemia_data.operations.recipe import Preprocessor, Recipe
from leukemia_data.records.arguments import Indices, as_whole, own_indices
from leukemia_data.records.record import Record
from leukemia_data.records.sample_table import Samples, decode_texts, require_samples
from leukemia_data.streams.batch import Batch


class Sample(NamedTuple):
    """An item of the dataset.

    ``image_CHW`` is a uint8 tensor of shape (3, S, S), RGB; ``label`` is -1 if unknown; ``record_id`` identifies
    predictions.
    """

    image_CHW: Tensor
    label: int
    record_id: str


class CachedCells(Dataset[Sample]):
    """Chosen samples of a cache, in the order of `indices`.

    Works with any number of DataLoader workers under fork, spawn and forkserver: it holds paths and offsets, no open
    file. The attributes `indices` and `labels` (-1 if unknown) are int64 arrays of shape (n,).

    Parameters
    ----------
    cache
        An opened cache.
    indices : ndarray of shape (n,), int64
        Sample indices, for instance from :func:`leukemia_data.splitting.splits.split_indices`, in any form of
        :func:`leukemia_data.records.arguments.as_indices`.

    Raises
    ------
    UsageError
        If `indices` are no samples of the cache, or `cache` is no cache.
    """

    def __init__(self, cache: Samples, indices: Indices) -> None:
        require_samples(cache)
        self._reader = cache.reader
        # A copy: labels and ids are taken now, pixels later.
        self.indices = own_indices(indices, len(cache), "indices")
        self.labels = cache.table.labels[self.indices].astype(np.int64)
        self._ids = cache.table.ids[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        image = np.array(self._reader.image(int(self.indices[index(position)])))
        return self._sample(position, torch.from_numpy(image))

    def __getitems__(self, positions: Sequence[int]) -> list[Sample]:
        """Fetch several samples with one gather; DataLoader calls this for each batch."""
        images_BHWC = torch.from_numpy(self._reader.gather(self.indices[np.asarray(positions, np.intp)]))
        return [self._sample(position, image) for position, image in zip(positions, images_BHWC, strict=True)]

    @property
    def record_ids(self) -> list[str]:
        """Ids in the dataset's order."""
        return decode_texts(self._ids)

    def _sample(self, position: int, image_HWC: Tensor) -> Sample:
        (record_id,) = decode_texts(self._ids[[position]])
        return Sample(image_HWC.permute(2, 0, 1), int(self.labels[position]), record_id)


class FrameIdentity(NamedTuple):
    """Digest (16 bytes) and look, shape (64,), int8, of a decoded frame."""

    digest: bytes
    look: NDArray[np.int8]


class FileStream:
    """Batches of image files; each iterator begins at the first file.

    The pixels equal those of a cache with the same recipe and size. ``indices_B`` are positions in `records`.

    Parameters
    ----------
    records
        The files; their labels are those of the batches.
    recipe, size_px
        Those of the network's training.
    batch_size
        Files per batch, at least 1; a batch holds fewer if some cannot be used.
    num_threads
        Files processed at a time, at least 1.
    on_failure
        Called for each unusable file, by every iterator; the file is left out.
    on_frame
        Called with the position of each other record and its frame's identity, by every iterator.

    Raises
    ------
    UsageError
        If an argument is of another kind or out of range.
    """

    def __init__(
        self,
        records: Sequence[Record],
        recipe: Recipe,
        size_px: int,
        *,
        batch_size: int,
        num_threads: int,
        on_failure: Callable[[Record, ImageError], None],
        on_frame: Callable[[int, FrameIdentity], None] | None = None,
    ) -> None:
        self._records = tuple(records)
        self._size_px = as_whole(size_px, "size_px", at_least=1)
        self._preprocess = Preprocessor(recipe, [self._size_px])
        self._batch_size = as_whole(batch_size, "batch_size", at_least=1)
        self._num_threads = as_whole(num_threads, "num_threads", at_least=1)
        self._on_failure, self._on_frame = on_failure, on_frame

    def __iter__(self) -> Iterator[Batch]:
        """Read the files again, from the first on."""
        with ThreadPoolExecutor(self._num_threads) as pool:
            for start in range(0, len(self._records), self._batch_size):
                chunk = self._records[start : start + self._batch_size]
                batch = self._batch(start, chunk, pool.map(self._load, chunk))
                if batch is not None:
                    yield batch

    def _load(self, record: Record) -> tuple[Image, FrameIdentity | None] | ImageError:
        try:
            frame = decode_rgb(read_file(record.path).data)
            identity = None if self._on_frame is None else FrameIdentity(frame_digest(frame), image_look(frame))
            return self._preprocess(frame)[self._size_px], identity
        except ImageError as error:
            return error

    def _batch(
        self, start: int, chunk: Sequence[Record], found: Iterable[tuple[Image, FrameIdentity | None] | ImageError]
    ) -> Batch | None:
        """The usable images of a chunk; None if there are none."""
        images, indices = [], []
        for place, (record, loaded) in enumerate(zip(chunk, found, strict=True), start):
            if isinstance(loaded, ImageError):
                self._on_failure(record, loaded)
                continue
            image, identity = loaded
            images.append(image)
            indices.append(place)
            if self._on_frame is not None and identity is not None:
                self._on_frame(place, identity)
        if not images:
            return None
        labels = torch.tensor([self._records[each].label for each in indices])
        mask = torch.ones(len(indices), dtype=torch.bool)
        occurrences = torch.zeros(len(indices), dtype=torch.int64)
        return Batch(torch.from_numpy(np.stack(images)), labels, torch.tensor(indices), mask, occurrences, labels)
