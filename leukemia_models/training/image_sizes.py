"""Progressive sizes: the image sides that a run trains at, from small to large, each for some epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_whole

ImageSizes = tuple[tuple[int, int], ...]
"""(side in px, number of epochs), ascending."""
_TEXT = re.compile(r"\d{1,9}:\d{1,9}(,\d{1,9}:\d{1,9})*")


def parse_sizes(text: str) -> ImageSizes:
    """Parse ``64:5,96:4,128:3``: 5 epochs at 64 px, then 4 at 96, then 3 at 128.

    Raises
    ------
    UsageError
        If the text is something else.
    """
    compact = text.replace(" ", "")
    if not _TEXT.fullmatch(compact):
        raise UsageError(f"sizes {text!r:.60}: write SIDE:EPOCHS,SIDE:EPOCHS,... such as 64:5,96:4,128:3")
    pairs = (step.split(":") for step in compact.split(","))
    return tuple((int(side), int(epochs)) for side, epochs in pairs)


def as_sizes(sizes: str | Sequence[Sequence[int]] | None) -> ImageSizes | None:
    """Return sizes from a text for :func:`parse_sizes`, or from pairs such as ``[(64, 5), (128, 3)]``.

    Raises
    ------
    UsageError
        If they are neither.
    """
    if sizes is None:
        return None
    if isinstance(sizes, str):
        return parse_sizes(sizes)
    steps = [tuple(step) for step in sizes]
    if any(len(step) != 2 for step in steps):
        raise UsageError(f"sizes must be pairs (side in px, epochs), such as [(64, 5), (128, 3)], got {sizes!r:.60}")
    return tuple((side, epochs) for side, epochs in steps)


def require_sizes(sizes: ImageSizes, epochs: int) -> None:
    """Raise UsageError unless the sides ascend and the epochs sum to `epochs`."""
    for side_px, num_epochs in sizes:
        as_whole(side_px, "a side in sizes", at_least=1)
        as_whole(num_epochs, "the epochs of a side in sizes", at_least=1)
    sides = [side_px for side_px, _ in sizes]
    if not sides or any(one >= other for one, other in pairwise(sides)):
        raise UsageError(f"the sides in sizes must ascend, such as 64:5,96:4,128:3, got {sizes_text(sizes)!r}")
    if total_epochs(sizes) != epochs:
        raise UsageError(
            f"sizes {sizes_text(sizes)} are {total_epochs(sizes)} epochs, and epochs is {epochs}: leave epochs out"
        )


def total_epochs(sizes: ImageSizes) -> int:
    """Return the number of epochs at all sizes."""
    return sum(epochs for _, epochs in sizes)


def run_length(epochs: int | None, sizes: ImageSizes | None) -> int | None:
    """Return the number of epochs of a run: as given, else those of its sizes, else None."""
    return total_epochs(sizes) if epochs is None and sizes else epochs


def last_px(sizes: ImageSizes) -> int:
    """Return the last side, which is that of the cache."""
    return sizes[-1][0]


def size_at(sizes: ImageSizes, epoch: int) -> int:
    """Return the side of an epoch, counted from 1."""
    ends = accumulate(epochs for _, epochs in sizes)
    return next((side_px for (side_px, _), end in zip(sizes, ends, strict=True) if epoch <= end), last_px(sizes))


def scaled_sizes(sizes: ImageSizes, factor: float) -> ImageSizes:
    """Return sizes with the epochs of each scaled and rounded up, at least 1."""
    # 550 x 0.02 may be slightly above 11.
    return tuple((side_px, max(1, math.ceil(epochs * factor - 1e-9))) for side_px, epochs in sizes)


def sizes_with_length(sizes: ImageSizes, epochs: int) -> ImageSizes:
    """Return sizes for another number of epochs, of which those at the last size are changed.

    Raises
    ------
    UsageError
        If no epoch at the last size is left: the network is evaluated at it, and its best epoch is one of it.
    """
    earlier = total_epochs(sizes[:-1])
    if epochs <= earlier:
        raise UsageError(
            f"--epochs {epochs}: the run has sizes {sizes_text(sizes)}, and only epochs at {last_px(sizes)} px, with "
            f"which it is evaluated, can be left out: give at least {earlier + 1}"
        )
    return (*sizes[:-1], (last_px(sizes), epochs - earlier))


def sizes_text(sizes: Sequence[Sequence[int]]) -> str:
    """Return ``64:5,96:4,128:3``."""
    return ",".join(f"{side_px}:{epochs}" for side_px, epochs in sizes)


def described_sizes(sizes: ImageSizes) -> str:
    """Return ``64 px for 5 epochs, 96 px for 4, 128 px for 3``."""
    (first_px, epochs), *others = sizes
    word = "epoch" if epochs == 1 else "epochs"
    return ", ".join(
        [f"{first_px} px for {epochs} {word}", *(f"{side_px} px for {count}" for side_px, count in others)]
    )
