"""What is measured: a cache and image files, the user's or made ones, and the same images as plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.caches.opening import choose_folder
from leukemia_data.sources.sample_set import write_sample
from stream.made_cache import random_cells, write_repeated_cache
from stream.peer import Setting

MADE_IMAGES = 3_581
MADE_SIZE_PX = 224
CHUNK_IMAGES = 512
MEAN, STD = (0.172, 0.102, 0.175), (0.203, 0.129, 0.197)


def make_setting(
    cache: Path | None, source: Path | None, work: Path, *, size_px: int, batch_size: int, num_workers: int
) -> Setting:
    """Find or make the inputs.

    Parameters
    ----------
    cache
        A cache, or a folder with one cache of `size_px`; None makes one of generated images.
    source
        Folder of original image files; None generates a sample.
    work
        Where made things go.
    size_px, batch_size, num_workers
        See :class:`~stream.peer.Setting`.
    """
    if cache is None:
        cache_dir = _made_cache(work / "cache", size_px)
    else:
        cache_dir, _ = choose_folder(cache, "a folder is measured", size_px=size_px)
    if source is None:
        source = _made_source(work / "source")
    images_path, labels_path = work / "images.npy", work / "labels.npy"
    num_images = _write_arrays(cache_dir, images_path, labels_path)
    return Setting(
        cache_dir=cache_dir.resolve(),
        source_dir=source.resolve(),
        images_path=images_path.resolve(),
        labels_path=labels_path.resolve(),
        batch_size=batch_size,
        num_workers=num_workers,
        num_images=num_images,
        mean=MEAN,
        std=STD,
    )


def _made_cache(directory: Path, size_px: int) -> Path:
    if not (directory / MANIFEST_NAME).exists():
        write_repeated_cache(directory, random_cells(CHUNK_IMAGES, size_px), MADE_IMAGES)
    return directory


def _made_source(directory: Path) -> Path:
    done = directory.with_suffix(".done")
    if not done.exists():
        write_sample(directory, num_subjects=16, cells_per_subject=32)
        done.touch()
    return directory


def _write_arrays(cache_dir: Path, images_path: Path, labels_path: Path) -> int:
    """Copy the cache's images and labels into .npy files, in the cache's order."""
    cache = open_cache(cache_dir)
    if not labels_path.exists():
        shape = (len(cache), cache.size_px, cache.size_px, 3)
        images = np.lib.format.open_memmap(images_path, "w+", np.uint8, shape)
        for start in range(0, len(cache), CHUNK_IMAGES):
            numbers = np.arange(start, min(start + CHUNK_IMAGES, len(cache)))
            images[numbers] = cache.reader.gather(numbers)
        images.flush()
        np.save(labels_path, np.asarray(cache.table.labels).astype(np.int64))
    return len(cache)
