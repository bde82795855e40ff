"""Describe how new frames differ from those that a network was trained on.

A network trained on segmented cells on black gives confident predictions on photographs too, and has never seen what
its recipe pads or crops in other frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.record import Record
from leukemia_data.scanning.frame_finding import FrameTraits, Framing, framing_text
from leukemia_data.scanning.frame_notes import WORTH_SAYING, cut_share, padding_share
from leukemia_data.scanning.scan import look_at_records
from leukemia_data.sources.reading import FramesFound, frames_found

MAX_LOOKED_AT = 200
_SHARE_DECODED = 0.25
_SIZE_TOLERANCE = 0.05


def frame_difference(
    training: Sequence[Mapping[str, Any]] | None, records: Sequence[Record], recipe: Recipe, size_px: int
) -> str | None:
    """Compare a sample of images with the frames of a training.

    Parameters
    ----------
    training
        From :func:`~leukemia_data.scanning.frame_notes.training_facts`; None or empty for a checkpoint of an earlier
        version.
    records
        The images to predict.
    recipe, size_px
        Those of the network, which determine padding and cropping.

    Returns
    -------
    str or None
        None where at least 95 % of the images are of the training's sizes (within 5 %), with what is padded and cut
        off, and on a ground of its kinds; or where nothing is known of either.
    """
    facts = _facts(training)
    seen = [traits for _, traits in look_at_records(records, MAX_LOOKED_AT, share=_SHARE_DECODED) if traits is not None]
    if not facts or not seen:
        return None
    framing = Framing(recipe, size_px)
    other_sizes = _other_sizes(facts, seen, framing)
    measured = [one.ground.name for one in seen if one.ground is not None]
    known_grounds = {found.ground for found in facts if found.ground}
    other_grounds = [ground for ground in measured if known_grounds and ground not in known_grounds]
    said = []
    if len(other_sizes) >= WORTH_SAYING * len(seen):
        said.append(
            f"{len(other_sizes):,} of {len(seen):,} images are {_size_text(other_sizes)}"
            f"{framing_text(other_sizes, framing)}"
        )
    if len(other_grounds) >= WORTH_SAYING * len(measured):
        grounds = "/".join(ground for ground, _ in Counter(other_grounds).most_common())
        said.append(f"{len(other_grounds):,} of {len(measured):,} lie on {grounds} ground")
    if not any((other_sizes, other_grounds)) or not said:
        return None
    sizes: Counter[tuple[int, int]] = Counter()
    for found in facts:
        for height, width, count in found.sizes:
            sizes[(height, width)] += count
    ground = f" on {'/'.join(sorted(known_grounds))} ground" if known_grounds else ""
    trained = list(sizes.elements())
    return (
        f"these frames differ from those of training ({_size_text(trained)}{framing_text(trained, framing)}{ground}): "
        f"{'; '.join(said)}. The network has not learned from such images"
    )


def _facts(training: Sequence[Mapping[str, Any]] | None) -> list[FramesFound]:
    try:
        return [frames_found(values) for values in training or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        # Written by a later version in another form.
        return []


def _other_sizes(facts: Sequence[FramesFound], seen: Sequence[FrameTraits], framing: Framing) -> list[tuple[int, int]]:
    """Sizes of images outside the training's range of sides, padding or cropping."""
    known = [_measures((height, width), framing) for found in facts for height, width, _ in found.sizes]
    low, high = (tuple(map(pick, zip(*known, strict=True))) for pick in (min, max))
    room = [_SIZE_TOLERANCE * value for value in high[:2]] + [WORTH_SAYING] * 2
    return [
        one.size_px
        for one in seen
        if any(
            not least - slack <= value <= most + slack
            for value, least, most, slack in zip(_measures(one.size_px, framing), low, high, room, strict=True)
        )
    ]


def _measures(size_px: tuple[int, int], framing: Framing) -> tuple[float, float, float, float]:
    recipe = framing.recipe
    return (*size_px, padding_share(*size_px, recipe, framing.size_px), cut_share(*size_px, recipe))


def _size_text(sizes: Sequence[tuple[int, int]]) -> str:
    counts = Counter(sizes)
    if len(counts) == 1:
        return f"{sizes[0][0]}x{sizes[0][1]} px"
    heights, widths = zip(*sizes, strict=True)
    return f"{min(heights)} to {max(heights)} px high and {min(widths)} to {max(widths)} px wide"
