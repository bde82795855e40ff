"""Samples for other loops: random access for a DataLoader, and batches of image files that are in no cache."""

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
    """What indexing the dataset gives.

    ``image_CHW`` is a uint8 tensor of shape (3, S, S), RGB; ``label`` is -1 where unknown; ``record_id`` travels
    with the image to the predictions.
    """

    image_CHW: Tensor
    label: int
    record_id: str


class CachedCells(Dataset[Sample]):
    """Chosen samples of a cache, in the order of `numbers`.

    Works with any number of DataLoader workers under fork, spawn and forkserver: it holds paths and offsets, no open
    file.

    Parameters
    ----------
    cache
        An opened cache.
    numbers : ndarray of shape (n,), int64
        Sample indices, for instance from :func:`leukemia_data.splitting.splits.split_indices`; or a list, a range, a
        mask or a column of a table, see :func:`leukemia_data.records.arguments.as_indices`.

    Attributes
    ----------
    numbers : ndarray of shape (n,), int64, read-only
    labels : ndarray of shape (n,), int64
        -1 where unknown.

    Raises
    ------
    UsageError
        If `numbers` names no samples of the cache, or `cache` is none.
    """

    def __init__(self, cache: Samples, numbers: Indices) -> None:
        require_samples(cache)
        self._reader = cache.reader
        # A copy: labels and ids are taken now, pixels later.
        self.numbers = own_indices(numbers, len(cache), "numbers")
        self.labels = cache.table.labels[self.numbers].astype(np.int64)
        self._ids = cache.table.ids[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> Sample:
        image = np.array(self._reader.image(int(self.numbers[index(position)])))
        return self._sample(position, torch.from_numpy(image))

    def __getitems__(self, positions: Sequence[int]) -> list[Sample]:
        """Fetch several samples with one gather; DataLoader calls this for each batch."""
        images_BHWC = torch.from_numpy(self._reader.gather(self.numbers[np.asarray(positions, np.intp)]))
        return [self._sample(position, image) for position, image in zip(positions, images_BHWC, strict=True)]

    @property
    def record_ids(self) -> list[str]:
        """Ids in the dataset's order."""
        return decode_texts(self._ids)

    def _sample(self, position: int, image_HWC: Tensor) -> Sample:
        (record_id,) = decode_texts(self._ids[[position]])
        return Sample(image_HWC.permute(2, 0, 1), int(self.labels[position]), record_id)


class FrameIdentity(NamedTuple):
    """What a decoded frame is recognised by: its digest of 16 bytes, and its look of shape (64,), int8."""

    digest: bytes
    look: NDArray[np.int8]


class FileStream:
    """Batches of image files; each iterator begins at the first file.

    The pixels are those that a cache of the same recipe and size would hold. ``indices_B`` counts `records`.

    Parameters
    ----------
    records
        What to read; their labels come with the batches.
    recipe, size_px
        What the network was trained with.
    batch_size
        Files a batch, at least 1; a batch holds fewer where some cannot be used.
    num_threads
        Files worked on at a time, at least 1.
    on_failure
        Is called for each file that cannot be used, by every iterator; the file is left out.
    on_frame
        Is called with the number of each other record, and what its decoded frame is recognised by, by every iterator.

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
        """Read the files once more, from the first on."""
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
        """Put the images of a chunk together; None where no file of it can be used."""
        images, numbers = [], []
        for number, (record, loaded) in enumerate(zip(chunk, found, strict=True), start):
            if isinstance(loaded, ImageError):
                self._on_failure(record, loaded)
            else:
                image, identity = loaded
                images.append(image)
                numbers.append(number)
                if self._on_frame is not None and identity is not None:
                    self._on_frame(number, identity)
        if not images:
            return None
        labels = torch.tensor([self._records[number].label for number in numbers])
        mask = torch.ones(len(numbers), dtype=torch.bool)
        return Batch(torch.from_numpy(np.stack(images)), labels, torch.tensor(numbers), mask)
