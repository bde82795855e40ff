"""A look at a sample of a source's frames, and how the frames of one set differ from those of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from leukemia_data.decoding.decode import decode_frame, read_file
from leukemia_data.files.text import printable
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.record import UNKNOWN_LABEL, ImagePlace, Record
from leukemia_data.scanning.frame_finding import FrameTraits, SeenFrame, find_telling_frames, framing_text, read_traits
from leukemia_data.scanning.frame_notes import (
    DEFAULT_SIZE_PX,
    WORTH_SAYING,
    SizedRecipe,
    cautions,
    frame_effects,
    suggested_recipe,
)
from leukemia_data.sources.reading import FramesFound, Reading, frames_found
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source

FRAMES_A_CLASS = 48
MIN_DECODED = 8
"""Frames per class that are decoded regardless of size."""
_DECODED_PX = 100_000_000
"""Total pixels decoded beyond that, about one second."""
_MAX_CLASSES = 16
_STORED_SHARE = 4
_NUM_THREADS = 4
_Item = TypeVar("_Item")


def with_frames(listing: SourceListing, recipe: SizedRecipe | None = None) -> SourceListing:
    """Return the listing with facts about a sample of its frames in its reading.

    Parameters
    ----------
    listing
        The source.
    recipe
        Of the build; its padding and cropping may separate the classes.
    """
    looks = look_at_classes(listing)
    seen = [
        SeenFrame(traits, name, record.subject)
        for name, looked_at in looks.items()
        if name
        for record, traits in looked_at
        if traits is not None
    ]
    frames = tuple(_summary(name, [traits for _, traits in looked_at]) for name, looked_at in looks.items())
    reading = replace(listing.reading, frames=frames, frame_finding=find_telling_frames(seen, recipe))
    return replace(listing, reading=reading)


Looks = list[tuple[Record, FrameTraits | None]]
"""Records with their traits; None for unreadable ones."""


def look_at_classes(listing: SourceListing) -> dict[str, Looks]:
    """Read the traits of some images of each class, by its name; of unlabelled ones under an empty name."""
    by_label: dict[int, list[Record]] = {}
    for record in listing.records:
        if not record.is_missing:
            by_label.setdefault(record.label, []).append(record)
    names = {UNKNOWN_LABEL: "", **dict(enumerate(listing.classes))}
    labels = sorted(by_label, key=lambda label: (label == UNKNOWN_LABEL, label))[:_MAX_CLASSES]
    return {names[label]: look_at_records(by_label[label], share=1 / len(labels)) for label in labels}


def look_at_records(records: Sequence[Record], max_count: int = FRAMES_A_CLASS, *, share: float = 1.0) -> Looks:
    """Read the traits of at most `max_count` images, spread over subjects or folders, with a share of the pixel budget.

    Of stores, which send whole objects, a quarter of `max_count` is read.
    """
    if records and not isinstance(records[0].path, Path):
        max_count = max(max_count // _STORED_SHARE, 1)
    chosen = _spread_over_owners(records, max_count)
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        headers = list(executor.map(partial(_look, is_decoded=False), (record.path for record in chosen)))
        sizes = [seen.height_px * seen.width_px for seen in headers if seen is not None]
        mean = max(sum(sizes) / len(sizes), 1.0) if sizes else 1.0
        decoded = spread_evenly(range(len(chosen)), max(MIN_DECODED, int(share * _DECODED_PX / mean)))
        whole = executor.map(partial(_look, is_decoded=True), (chosen[place].path for place in decoded))
        for place, traits in zip(decoded, whole, strict=True):
            # An image with an intact header and damaged pixels still has a size.
            headers[place] = traits or headers[place]
    return list(zip(chosen, headers, strict=True))


def _spread_over_owners(records: Sequence[Record], max_count: int) -> list[Record]:
    """At most `max_count` records, as evenly as possible from each subject or folder."""
    if len(records) <= max_count:
        return list(records)
    places_of: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        owner = record.subject or f"{record.record_id.rpartition('/')[0]}/"
        places_of.setdefault(owner, []).append(place)
    owners = spread_evenly(list(places_of.values()), max_count)
    quotas = [0] * len(owners)
    while sum(quotas) < max_count:
        for number, places in enumerate(owners):
            if sum(quotas) < max_count and quotas[number] < len(places):
                quotas[number] += 1
    chosen = [place for places, quota in zip(owners, quotas, strict=True) for place in spread_evenly(places, quota)]
    return [records[place] for place in sorted(chosen)]


def spread_evenly(items: Sequence[_Item], max_count: int) -> list[_Item]:
    """Return at most `max_count` evenly spaced items."""
    count = min(max_count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _look(place: ImagePlace, *, is_decoded: bool) -> FrameTraits | None:
    # A second attempt, so that a transient read error does not change the result.
    return _look_once(place, is_decoded) or _look_once(place, is_decoded)


def _look_once(place: ImagePlace, is_decoded: bool) -> FrameTraits | None:
    try:
        if not is_decoded and isinstance(place, Path):
            return read_traits(place)
        data = read_file(place).data
        return read_traits(data, decode_frame(data) if is_decoded else None)
    except Exception:  # Pillow's readers may raise anything on damaged files, such as a MemoryError.
        # Unreadable images are reported when they are preprocessed.
        return None


def _summary(name: str, looks: Sequence[FrameTraits | None]) -> FramesFound:
    seen = [look for look in looks if look is not None]
    sizes = Counter(look.size_px for look in seen)
    grounds = Counter(look.ground.name for look in seen if look.ground is not None)
    return FramesFound(
        class_name=name,
        num_looked_at=len(looks),
        sizes=tuple((height, width, count) for (height, width), count in sizes.most_common()),
        modes=tuple(Counter(look.mode for look in seen).most_common()),
        ground=grounds.most_common(1)[0][0] if grounds else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Scan:
    """Result of a scan.

    Attributes
    ----------
    listing
        The source's images, with their reading and frames.
    recipe
        The recipe of the computed effects.
    cautions
        Warnings to check before a build.
    suggested, why
        The preset that suits the frames, and the reason; empty if unknown.
    """

    listing: SourceListing
    recipe: Recipe
    cautions: tuple[str, ...]
    suggested: str
    why: str

    def __repr__(self) -> str:
        return "\n".join(map(printable, self.lines()))

    @property
    def reading(self) -> Reading:
        """How the source was read."""
        return self.listing.reading

    def lines(self) -> list[str]:
        """Return the scan as lines of text."""
        suggestion = f"{self.suggested} ({self.why})" if self.suggested else "none: no frame could be looked at"
        return [
            f"{len(self.listing.records):,} images",
            *self.reading.lines(),
            f"changes are told by: {self.reading.told_by}",
            *(f"caution: {text}" for text in self.cautions),
            f"suggested recipe: {suggestion}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "name": self.listing.name,
            "num_images": len(self.listing.records),
            "reading": self.reading.to_dict(),
            "recipe": self.recipe.name,
            "effects": [
                {"class": effect.class_name, "padding": round(effect.padding, 4), "cut": round(effect.cut, 4)}
                for effect in frame_effects(self.reading.frames, self.recipe)
            ],
            "cautions": list(self.cautions),
            "suggested_recipe": self.suggested,
            "why": self.why,
        }


def scan(
    paths: Sequence[ImagePlace],
    recipe: Recipe,
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    options: ReadingOptions | None = None,
) -> Scan:
    """Read a source and a sample of its frames, and compute the effect of a recipe on them.

    Parameters
    ----------
    paths, root, allow_outside, options
        As for :func:`leukemia_data.sources.source.list_source`, whose errors it raises.
    recipe
        The recipe of the build.
    """
    listed = list_source(paths, root=root, allow_outside=allow_outside, options=options)
    listing = with_frames(listed, SizedRecipe(recipe, DEFAULT_SIZE_PX))
    suggested, why = suggested_recipe(listing.reading.frames) or ("", "")
    return Scan(
        listing=listing, recipe=recipe, cautions=tuple(cautions(listing.reading, recipe)), suggested=suggested, why=why
    )


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
        A caution; None if at least 95 % of the images are of the training's sizes (within 5 %) and kinds of ground, and
        are padded and cropped alike, or if the frames of either are unknown.
    """
    facts = _facts(training)
    seen = [traits for _, traits in look_at_records(records, MAX_LOOKED_AT, share=_SHARE_DECODED) if traits is not None]
    if not facts or not seen:
        return None
    sized = SizedRecipe(recipe, size_px)
    other_sizes = _other_sizes(facts, seen, sized)
    measured = [one.ground.name for one in seen if one.ground is not None]
    known_grounds = {found.ground for found in facts if found.ground}
    other_grounds = [ground for ground in measured if known_grounds and ground not in known_grounds]
    said = []
    if other_sizes and len(other_sizes) >= WORTH_SAYING * len(seen):
        said.append(f"{len(other_sizes):,} of {len(seen):,} images are {_size_text(other_sizes, sized)}")
    if other_grounds and len(other_grounds) >= WORTH_SAYING * len(measured):
        grounds = "/".join(ground for ground, _ in Counter(other_grounds).most_common())
        said.append(f"{len(other_grounds):,} of {len(measured):,} lie on {grounds} ground")
    if not said:
        return None
    trained = [(height, width) for found in facts for height, width, count in found.sizes for _ in range(count)]
    ground = f" on {'/'.join(sorted(known_grounds))} ground" if known_grounds else ""
    return (
        f"these frames differ from those of training ({_size_text(trained, sized)}{ground}): {'; '.join(said)}. "
        "The network has not learned from such images"
    )


def _facts(training: Sequence[Mapping[str, Any]] | None) -> list[FramesFound]:
    try:
        return [frames_found(values) for values in training or ()]
    except (KeyError, TypeError, ValueError, AttributeError):
        # Written by a later version in another form.
        return []


def _other_sizes(
    facts: Sequence[FramesFound], seen: Sequence[FrameTraits], recipe: SizedRecipe
) -> list[tuple[int, int]]:
    """Sizes of images outside the training's range of sides, padding or cropping."""

    def measures(height: int, width: int) -> tuple[float, ...]:
        return height, width, recipe.padding(height, width), recipe.cut(height, width)

    known = [measures(height, width) for found in facts for height, width, _ in found.sizes]
    low, high = (tuple(map(pick, zip(*known, strict=True))) for pick in (min, max))
    room = [_SIZE_TOLERANCE * value for value in high[:2]] + [WORTH_SAYING] * 2
    return [
        one.size_px
        for one in seen
        if any(
            not least - slack <= value <= largest + slack
            for value, least, largest, slack in zip(measures(*one.size_px), low, high, room, strict=True)
        )
    ]


def _size_text(sizes: Sequence[tuple[int, int]], recipe: SizedRecipe) -> str:
    heights, widths = zip(*sizes, strict=True)
    text = f"{min(heights)} to {max(heights)} px high and {min(widths)} to {max(widths)} px wide"
    if len(set(sizes)) == 1:
        text = f"{heights[0]}x{widths[0]} px"
    return f"{text}{framing_text(sizes, recipe)}"
