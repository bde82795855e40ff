"""Scan a source before a build: its reading, its frames by class, and a suitable preset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from leukemia_data.decoding.decode import decode_frame, read_file
from leukemia_data.files.text import printable
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.record import UNKNOWN_LABEL, ImagePlace, Record
from leukemia_data.scanning.frame_finding import FrameTraits, Framing, SeenFrame, find_telling_frames, read_traits
from leukemia_data.scanning.frame_notes import DEFAULT_SIZE_PX, cautions, frame_effects, suggested_recipe
from leukemia_data.sources.reading import FramesFound, Reading
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


def with_frames(listing: SourceListing, framing: Framing | None = None) -> SourceListing:
    """Return the listing with facts about a sample of its frames in its reading.

    Parameters
    ----------
    listing
        The source.
    framing
        Recipe and size of the build: their padding and cropping may separate the classes.
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
    return replace(
        listing,
        reading=replace(listing.reading, frames=frames, frame_finding=find_telling_frames(seen, framing)),
    )


Looks = list[tuple[Record, FrameTraits | None]]
"""Records with their traits; None for unreadable ones."""


def look_at_classes(listing: SourceListing) -> dict[str, Looks]:
    """Read the traits of some images of each class.

    Parameters
    ----------
    listing
        The source; the sample is a function of its records.

    Returns
    -------
    dict of str to Looks
        By class name; unlabelled images under an empty name.
    """
    by_label: dict[int, list[Record]] = {}
    for record in listing.records:
        if not record.is_missing:
            by_label.setdefault(record.label, []).append(record)
    names = {UNKNOWN_LABEL: "", **dict(enumerate(listing.classes))}
    labels = sorted(by_label, key=lambda label: (label == UNKNOWN_LABEL, label))[:_MAX_CLASSES]
    return {names[label]: look_at_records(by_label[label], share=1 / len(labels)) for label in labels}


def look_at_records(records: Sequence[Record], max_count: int = FRAMES_A_CLASS, *, share: float = 1.0) -> Looks:
    """Read the traits of some images, spread over subjects or folders.

    Parameters
    ----------
    records
        Records to choose from, in a deterministic order.
    max_count
        Maximal number of images; a quarter of it for stores, which send whole objects.
    share
        Fraction of the pixel budget.
    """
    if records and not isinstance(records[0].path, Path):
        max_count = max(max_count // _STORED_SHARE, 1)
    chosen = _spread_over_owners(records, max_count)
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        headers = dict(zip(map(id, chosen), _look_at(chosen, executor, is_decoded=False), strict=True))
        decoded = _spread(chosen, _num_to_decode(headers.values(), share))
        whole = dict(zip(map(id, decoded), _look_at(decoded, executor, is_decoded=True), strict=True))
    # An image with an intact header and damaged pixels still has a size.
    return [(record, whole.get(id(record)) or headers[id(record)]) for record in chosen]


def _num_to_decode(headers: Iterable[FrameTraits | None], share: float) -> int:
    """Number of frames within the pixel budget."""
    sizes = [seen.height_px * seen.width_px for seen in headers if seen is not None]
    mean = sum(sizes) / len(sizes) if sizes else 1.0
    return max(MIN_DECODED, int(share * _DECODED_PX / max(mean, 1.0)))


def _look_at(records: Sequence[Record], executor: Executor, *, is_decoded: bool) -> list[FrameTraits | None]:
    return list(executor.map(partial(_look, is_decoded=is_decoded), (record.path for record in records)))


def _spread_over_owners(records: Sequence[Record], max_count: int) -> list[Record]:
    """At most `max_count` records, as evenly as possible from each subject or folder."""
    if len(records) <= max_count:
        return list(records)
    places_of: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        owner = record.subject or f"{record.record_id.rpartition('/')[0]}/"
        places_of.setdefault(owner, []).append(place)
    owners = _spread(list(places_of.values()), max_count)
    quotas = [0] * len(owners)
    while sum(quotas) < max_count:
        for number, places in enumerate(owners):
            if sum(quotas) < max_count and quotas[number] < len(places):
                quotas[number] += 1
    chosen = [place for places, quota in zip(owners, quotas, strict=True) for place in _spread(places, quota)]
    return [records[place] for place in sorted(chosen)]


def _spread(items: Sequence[_Item], max_count: int) -> list[_Item]:
    """At most `max_count` evenly spaced items."""
    if len(items) <= max_count:
        return list(items)
    return [items[number * len(items) // max_count] for number in range(max_count)]


def _look(place: ImagePlace, *, is_decoded: bool) -> FrameTraits | None:
    """Read an image's traits, with one retry, so that a transient read error does not change the result."""
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
    listing = with_frames(listed, Framing(recipe, DEFAULT_SIZE_PX))
    suggested, why = suggested_recipe(listing.reading.frames) or ("", "")
    return Scan(
        listing=listing, recipe=recipe, cautions=tuple(cautions(listing.reading, recipe)), suggested=suggested, why=why
    )
