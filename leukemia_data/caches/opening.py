"""Caches at a path or an address: listed, chosen and opened. What differs between folders and stores stands here.

Modules are imported where they are needed: those for object stores load fsspec, for which a cache on disk has no use,
and all of them NumPy, for which a build with nothing to do has none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leukemia_data.caches.manifest import Manifest, cache_summary, load_manifest
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.caches.cache import Cache
    from leukemia_data.caches.local_copies import LocalCopies


@dataclass(frozen=True, slots=True)
class LocalCopiesChoice:
    """Where shards of caches at URLs are copied to, and how much room they may take; None for the defaults."""

    directory: Path | None = None
    max_gb: float | None = None

    def open(self) -> LocalCopies:
        """Return the folder of copies; nothing is written yet."""
        from leukemia_data.caches.local_copies import LocalCopies, default_copies_dir

        directory = self.directory or default_copies_dir(os.environ, sys.platform, Path.home())
        return LocalCopies(directory, None if self.max_gb is None else int(self.max_gb * 1e9))


DEFAULT_COPIES = LocalCopiesChoice()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is done otherwise in a folder than in a store. Each function takes what `find` returns."""

    find: Callable[[Any], list[Any]]
    read: Callable[[Any], Manifest]
    open: Callable[[Any, LocalCopiesChoice], Cache]
    cure: Callable[[int | None, str | None], str]
    """What to do if there is no cache of a size and a recipe."""


def _kind_of(location: Location) -> _Kind:
    if isinstance(location, Path):
        from leukemia_data.caches.cache import find_cache_dirs, open_cache

        return _Kind(find_cache_dirs, load_manifest, lambda found, copies: open_cache(found), _build_one)
    from leukemia_data.caches import remote_cache
    from leukemia_data.stores.object_store import open_store

    return _Kind(
        remote_cache.find_remote_caches,
        remote_cache.read_manifest_at,
        lambda found, copies: remote_cache.open_remote_cache(open_store(found), copies.open()),
        lambda size_px, recipe: f"copy one there with `ldata push CACHE {location}`",
    )


def _build_one(size_px: int | None, recipe: str | None) -> str:
    options = (f" --size {size_px}" if size_px is not None else "") + (f" --recipe {recipe}" if recipe else "")
    return f"make one with `ldata build SOURCE{options}`"


@dataclass(frozen=True, slots=True)
class FoundCache:
    """A committed cache, not opened: its folder or address, and its manifest."""

    location: Location
    manifest: Manifest

    def to_dict(self) -> dict[str, object]:
        """Return what ``ldata list --json`` prints of it."""
        return {
            **cache_summary(self.location, self.manifest),
            "recipe": self.manifest.recipe.name,
            "name": self.manifest.name,
        }


def find_caches(location: Location) -> list[Location]:
    """Return the caches at a location, or up to two levels below it, in the order of their names.

    Raises
    ------
    StorageError
        If the store cannot be read.
    """
    return _kind_of(location).find(location)


def list_caches(location: Location, *, console: Console = NULL_CONSOLE) -> list[FoundCache]:
    """Find the caches at or below a location and read their manifests; those that cannot be read get a note.

    Raises
    ------
    StorageError
        If the store cannot be read.
    """
    kind, found = _kind_of(location), []
    for place in kind.find(location):
        try:
            found.append(FoundCache(place, kind.read(place)))
        except CacheError as error:
            console.note(f"note: {error}")
    return found


def choose_cache(location: Location, *, size_px: int | None = None, recipe: str | None = None) -> FoundCache:
    """Choose the one cache that a location means: itself, or the only matching one below it.

    Parameters
    ----------
    location
        A folder or an address.
    size_px, recipe
        Side of the images and name of the recipe, to choose among several caches.

    Raises
    ------
    UsageError
        If several match; the message lists them.
    CacheError
        If none does, or its manifest is damaged.
    StorageError
        If the store cannot be read.
    """
    kind = _kind_of(location)
    place = _choose(kind, location, size_px, recipe)
    return FoundCache(place, kind.read(place))


def _choose(kind: _Kind, location: Location, size_px: int | None, recipe: str | None) -> Any:  # noqa: ANN401 - a Path of a Path
    found = kind.find(location)
    is_free = size_px is None and recipe is None
    fitting = found if is_free and len(found) == 1 else [p for p in found if _fits(kind, p, size_px, recipe)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = "".join(f"\n  {place}" for place in fitting)
        raise UsageError(f"several caches at {location}, name one:{choices}")
    wanted = "cache" + (f" of {size_px} px" if size_px is not None else "") + (f" of recipe {recipe}" if recipe else "")
    others = f" (there are: {', '.join(map(str, found))})" if found else ""
    raise CacheError(f"no {wanted} at {location}{others}; {kind.cure(size_px, recipe)}")


def _fits(kind: _Kind, place: Location, size_px: int | None, recipe: str | None) -> bool:
    """Whether a readable cache of this size and recipe lies there; a damaged neighbour shall not hide the others."""
    try:
        manifest = kind.read(place)
    except CacheError:
        return False
    return size_px in (None, manifest.size_px) and recipe in (None, manifest.recipe.name)


def choose_folder(location: Location, refusal: str, *, size_px: int | None = None) -> tuple[Path, Manifest]:
    """Choose one cache as :func:`choose_cache` does, for work that can be done in folders only.

    Raises
    ------
    UsageError
        If the location is an address; `refusal` says what to do instead.
    """
    if not isinstance(location, Path):
        raise UsageError(f"{location}: {refusal}")
    directory = _choose(_kind_of(location), location, size_px, None)
    return directory, load_manifest(directory)


def open_chosen_cache(
    location: Location,
    copies: LocalCopiesChoice = DEFAULT_COPIES,
    *,
    size_px: int | None = None,
    recipe: str | None = None,
) -> Cache:
    """Open the one cache that a location means: itself, or the only matching one below it.

    Parameters
    ----------
    location
        A folder or an address.
    copies
        Where shards of a cache at a URL are copied to.
    size_px, recipe
        Side of the images and name of the recipe, to choose among several caches.

    Raises
    ------
    UsageError, CacheError, StorageError
        If there is none, several match, or it cannot be opened.
    """
    kind = _kind_of(location)
    return kind.open(_choose(kind, location, size_px, recipe), copies)


def fingerprints(location: Location) -> dict[Location, str]:
    """Fingerprints of the caches at or below a location; those that cannot be read are left out."""
    return {found.location: found.manifest.fingerprint for found in list_caches(location)}


def lasting_name(cache: Cache) -> str:
    """How a cache is named so that it is found again from any folder."""
    return str(cache.location.resolve() if isinstance(cache.location, Path) else cache.location)
