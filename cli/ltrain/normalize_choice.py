"""Mean and std of a run: the exact ones of its training images, or six numbers that the user gave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cli.output import print_note
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.statistics import channel_statistics
from leukemia_data.errors import UsageError
from leukemia_models.devices.normalization import Normalization, check_normalization

_GUARD_IMAGES = 256
_NUM_NUMBERS = 6


def choose_normalization(text: str, cache: Cache, numbers: NDArray[np.int64], *, force: bool) -> Normalization:
    """Return the normalisation that --normalize names, checked against some training images.

    Parameters
    ----------
    text
        ``train``, or six numbers with commas.
    cache, numbers
        Where the training images are.
    force
        Only warn when the numbers do not fit.

    Raises
    ------
    UsageError
        If the text is neither, or the numbers do not fit the images.
    """
    normalization = _of_training_images(cache, numbers) if text == "train" else _parse(text)
    step = max(len(numbers) // _GUARD_IMAGES, 1)
    try:
        check_normalization(normalization, cache.reader.gather(numbers[::step]))
    except UsageError as error:
        if not force:
            raise UsageError(f"{error}; --force-normalize uses them all the same") from None
        print_note(f"warning: {error}; used all the same, as --force-normalize says")
    return normalization


def _of_training_images(cache: Cache, numbers: NDArray[np.int64]) -> Normalization:
    table = cache.table
    statistics = channel_statistics(
        table.channel_sums[numbers], table.channel_square_sums[numbers], cache.pixels_per_image
    )
    if statistics is None:
        raise UsageError("there is no image to train on")
    return Normalization(statistics.mean, statistics.std)


def _parse(text: str) -> Normalization:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != _NUM_NUMBERS:
        raise UsageError(f"--normalize {text!r}: give train, or mean and std as six numbers: R,G,B,R,G,B")
    return Normalization.of(numbers[:3], numbers[3:])
