"""What the public functions share: conversion of arguments, and consoles."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from leukemia_data.console import BarProgress, Console, NullConsole, Progress
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


def as_optional_path(place: object, name: str) -> Path | None:
    """Return the path of this machine that an argument means; None stays None."""
    return None if place is None else as_path(place, name)


def as_image_place(place: object, name: str) -> ImagePlace:
    """Return the path that an argument means, or the address with what reads it."""
    location = as_location(place, name)
    if isinstance(location, Path):
        return location
    from leukemia_data.stores.object_store import stored_url

    return stored_url(location)


def as_sources(sources: Sequence[Place], name: str = "sources") -> list[ImagePlace]:
    """Return the places of images, at least one."""
    if not sources:
        raise UsageError(f"{name}: name at least one file, folder or table of images")
    return [as_image_place(source, name) for source in sources]


def as_root(root: Place | None) -> ImagePlace | None:
    """Return the folder that paths of tables start from, if one was given."""
    return None if root is None else as_image_place(root, "root")


def as_recipe(recipe: str | Recipe) -> Recipe:
    """Return a recipe by its name or file, or as it is."""
    from leukemia_data.operations.recipe import load_recipe

    return load_recipe(recipe) if isinstance(recipe, str) else recipe


def place_of(cache: object) -> Location:
    """Return the location of an opened cache, or the one that a place names."""
    return as_location(getattr(cache, "location", None) or cache, "cache")


def as_sizes(sizes: int | Sequence[int]) -> list[int]:
    """Return sides of images in px, given as one or several."""
    several = sizes if isinstance(sizes, Sequence) and not isinstance(sizes, str) else [sizes]
    return [as_whole(size, "sizes", at_least=1) for size in several]


_PACKAGES = tuple(f"{Path(__file__).parents[2] / name}{os.sep}" for name in ("leukemia_data", "leukemia_models"))


class LeukemiaWarning(UserWarning):
    """A caution about data, settings or results."""


class QuietConsole(NullConsole):
    """Passes cautions on as :class:`LeukemiaWarning`; prints nothing."""

    def warn(self, text: str) -> None:
        """Warn, at the line that called the library."""
        warnings.warn(text, LeukemiaWarning, stacklevel=_num_own_frames())


class VerboseConsole(QuietConsole):
    """Writes notes on stderr and shows progress, in a notebook as a widget where ipywidgets is installed."""

    def note(self, text: str) -> None:
        """Write a line."""
        from tqdm.auto import tqdm

        tqdm.write(text, file=sys.stderr)

    @contextmanager
    def progress(self, total: int | None, what: str, unit: str = "img", done: int = 0) -> Iterator[Progress]:
        """Show a bar with rate and time left."""
        from tqdm.auto import tqdm

        with tqdm(total=total, initial=done, desc=what, unit=f" {unit}", smoothing=0.1) as bar:
            yield BarProgress(bar)


def _num_own_frames() -> int:
    """Return how many frames above the caller's the first one outside the library is."""
    frame, number = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGES):
        frame, number = frame.f_back, number + 1
    return number


def console_of(verbose: bool | Console) -> Console:
    """Return the console that an argument `verbose` means; UsageError if it is neither a bool nor a console."""
    if isinstance(verbose, bool):
        return VerboseConsole() if verbose else QuietConsole()
    if not all(hasattr(verbose, name) for name in ("note", "warn", "progress")):
        raise UsageError(f"verbose must be True, False or a console, got {verbose!r:.60}")
    return verbose
