"""A look at a source before anything is built: its reading, its frames, and what a recipe does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.record import ImagePlace
from leukemia_data.scanning.frame_finding import Framing
from leukemia_data.scanning.frame_notes import DEFAULT_SIZE_PX, cautions, frame_effects, suggested_recipe
from leukemia_data.scanning.frames import with_frames
from leukemia_data.sources.reading import Reading
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a scan tells.

    Attributes
    ----------
    listing
        The source's images, with their reading and frames.
    recipe
        The recipe whose effect was computed.
    cautions
        What should be looked at before a build, in sentences.
    suggested, why
        The preset that suits the frames, and the reason; empty where nothing is known of them.
    """

    listing: SourceListing
    recipe: Recipe
    cautions: tuple[str, ...]
    suggested: str
    why: str

    @property
    def reading(self) -> Reading:
        """How the source was understood."""
        return self.listing.reading

    def lines(self) -> list[str]:
        """The scan for people."""
        suggestion = f"{self.suggested} ({self.why})" if self.suggested else "none: no frame could be looked at"
        return [
            f"{len(self.listing.records):,} images",
            *self.reading.lines(),
            f"changes are told by: {self.reading.told_by}",
            *(f"caution: {text}" for text in self.cautions),
            f"suggested recipe: {suggestion}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
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
    """Read a source, look at a sample of its frames, and say what a recipe would do to them.

    Parameters
    ----------
    paths, root, allow_outside, options
        As for :func:`leukemia_data.sources.source.list_source`, whose errors it raises.
    recipe
        The recipe that the source is to be built with.
    """
    listed = list_source(paths, root=root, allow_outside=allow_outside, options=options)
    listing = with_frames(listed, Framing(recipe, DEFAULT_SIZE_PX))
    suggested, why = suggested_recipe(listing.reading.frames) or ("", "")
    return Scan(
        listing=listing, recipe=recipe, cautions=tuple(cautions(listing.reading, recipe)), suggested=suggested, why=why
    )
