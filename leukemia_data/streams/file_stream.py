"""Batches from image files that are in no cache, put through a recipe on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leukemia_data.errors import ImageError
from leukemia_data.pixels.decode import decode_rgb
from leukemia_data.pixels.frame_digest import frame_digest
from leukemia_data.pixels.image_ops import Image
from leukemia_data.pixels.look import image_look
from leukemia_data.pixels.preprocess import Preprocessor
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.arguments import as_whole
from leukemia_data.samples.record import Record
from leukemia_data.sources.source_file import read_file
from leukemia_data.streams.batch import Batch


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
