"""Batches from image files that are in no cache, put through a recipe on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from leukemia_data.errors import ImageError
from leukemia_data.pixels.decode import decode_rgb
from leukemia_data.pixels.frame_digest import frame_digest
from leukemia_data.pixels.image_ops import Image
from leukemia_data.pixels.preprocess import Preprocessor
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.record import Record
from leukemia_data.sources.source_file import read_file
from leukemia_data.streams.batch import Batch


def stream_files(
    records: Sequence[Record],
    recipe: Recipe,
    size_px: int,
    *,
    batch_size: int,
    num_threads: int,
    on_failure: Callable[[Record, ImageError], None],
    on_frame: Callable[[int, bytes], None] | None = None,
) -> Iterator[Batch]:
    """Decode and preprocess files, batch by batch.

    The pixels are those that a cache of the same recipe and size would hold. ``indices_B`` counts `records`.

    Parameters
    ----------
    records
        What to read; their labels come with the batches.
    recipe, size_px
        What the network was trained with.
    num_threads
        Files worked on at a time.
    on_failure
        Told of each file that cannot be used; it is left out.
    on_frame
        Told of the number of each other record, and of its decoded frame's digest.
    """
    preprocess = Preprocessor(recipe, [size_px])

    def load(record: Record) -> tuple[Image, bytes] | ImageError:
        try:
            frame = decode_rgb(read_file(record.path).data)
            return preprocess(frame)[size_px], frame_digest(frame) if on_frame is not None else b""
        except ImageError as error:
            return error

    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(records), batch_size):
            images, numbers = [], []
            chunk = records[start : start + batch_size]
            for number, (record, loaded) in enumerate(zip(chunk, pool.map(load, chunk), strict=True), start):
                if isinstance(loaded, ImageError):
                    on_failure(record, loaded)
                else:
                    image, digest = loaded
                    images.append(image)
                    numbers.append(number)
                    if on_frame is not None:
                        on_frame(number, digest)
            if images:
                labels = [records[number].label for number in numbers]
                mask = torch.ones(len(numbers), dtype=torch.bool)
                yield Batch(torch.from_numpy(np.stack(images)), torch.tensor(labels), torch.tensor(numbers), mask)
