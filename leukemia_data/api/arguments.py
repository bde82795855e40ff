"""Arguments of the public functions: places as people write them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_whole
from leukemia_data.stores.url import Location, Url, parse_location

if TYPE_CHECKING:
    from leukemia_data.caches.cache import Cache
    from leukemia_data.operations.recipe import Recipe
    from leukemia_data.records.record import ImagePlace

Place: TypeAlias = "str | os.PathLike[str] | Url"
"""A path, or an address such as ``s3://bucket/cells``."""
CachePlace: TypeAlias = "Place | Cache"
"""Where a cache is, or the opened cache."""


def as_location(place: object, name: str) -> Location:
    """Return the path or address that an argument means; UsageError names the argument `name`."""
    if isinstance(place, Url):
        return place
    if not isinstance(place, str | os.PathLike) or not os.fspath(place):
        raise UsageError(f"{name} must be a path or an address, got {place!r:.60}")
    return parse_location(str(os.fspath(place)))


def as_path(place: object, name: str) -> Path:
    """Return the path of this machine that an argument means."""
    location = as_location(place, name)
    if not isinstance(location, Path):
        raise UsageError(f"{name} must be a path on this machine, got {location}")
    return location


def as_image_place(place: object, name: str) -> ImagePlace:
    """Return the path that an argument means, or the address with what reads it."""
    location = as_location(place, name)
    if isinstance(location, Path):
        return location
    from leukemia_data.stores.object_store import stored_url

    return stored_url(location)


def as_sources(sources: Sequence[Place]) -> list[ImagePlace]:
    """Return the places of images, at least one."""
    if not sources:
        raise UsageError("sources: name at least one folder or table of images")
    return [as_image_place(source, "sources") for source in sources]


def as_root(root: Place | None) -> ImagePlace | None:
    """Return the folder that paths of tables start from, if one was given."""
    return None if root is None else as_image_place(root, "root")


def as_recipe(recipe: str | Recipe) -> Recipe:
    """Return a recipe by its name or file, or as it is."""
    from leukemia_data.operations.recipe import load_recipe

    return load_recipe(recipe) if isinstance(recipe, str) else recipe


def place_of(cache: object) -> Location:
    """Where a cache lies that is opened, or that a place names."""
    found = getattr(cache, "location", None)
    return as_location(cache, "cache") if found is None else as_location(found, "cache")


def as_sizes(sizes: int | Sequence[int]) -> list[int]:
    """Return sides of images in px, given as one or several."""
    several = sizes if isinstance(sizes, Sequence) and not isinstance(sizes, str) else [sizes]
    return [as_whole(size, "sizes", at_least=1) for size in several]
