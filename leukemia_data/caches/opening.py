"""List, choose and open caches at a path or an address. Handles the differences between folders and object stores.

Imports are lazy: object stores load fsspec, which caches on disk do not need, and both load NumPy, which a build with
nothing to do does not need.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.caches.manifest import Manifest, cache_summary, load_manifest
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.caches.cache import Cache
    from leukemia_data.caches.local_copies import LocalCopies


@dataclass(frozen=True, slots=True)
class LocalCopiesChoice:
    """Folder and maximal size of local copies of caches at URLs; None for the defaults."""

    directory: Path | None = None
    max_gb: float | None = None

    def open(self) -> LocalCopies:
        """Return the folder of local copies, without creating it."""
        from leukemia_data.caches.local_copies import LocalCopies, default_copies_dir

        directory = self.directory or default_copies_dir(os.environ, sys.platform, Path.home())
        return LocalCopies(directory, None if self.max_gb is None else int(self.max_gb * 1e9))


DEFAULT_COPIES = LocalCopiesChoice()


@dataclass(frozen=True, slots=True)
class FoundCache:
    """Location and manifest of a committed cache."""

    location: Location
    manifest: Manifest

    def to_dict(self) -> dict[str, object]:
        """Return the values that ``ldata list --json`` prints."""
        return {
            **cache_summary(self.location, self.manifest),
            "recipe": self.manifest.recipe.name,
            "name": self.manifest.name,
        }


def find_caches(location: Location) -> list[Location]:
    """Return the caches at a location, or up to two levels below it, sorted by name.

    Raises
    ------
    StorageError
        If the store cannot be read.
    """
    if isinstance(location, Path):
        from leukemia_data.caches.cache import find_cache_dirs

        return list(find_cache_dirs(location))
    from leukemia_data.caches.remote_cache import find_remote_caches

    return list(find_remote_caches(location))


def list_caches(location: Location, *, console: Console = NULL_CONSOLE) -> list[FoundCache]:
    """Find the caches at or below a location and read their manifests; unreadable ones are skipped with a note."""
    found = []
    for place in find_caches(location):
        try:
            found.append(FoundCache(place, _read_manifest(place)))
        except CacheError as error:
            console.note(f"note: {error}")
    return found


def _read_manifest(place: Location) -> Manifest:
    if isinstance(place, Path):
        return load_manifest(place)
    from leukemia_data.caches.remote_cache import read_manifest
    from leukemia_data.stores.object_store import open_store

    return read_manifest(open_store(place))


def choose_cache(location: Location, *, size_px: int | None = None, recipe: str | None = None) -> FoundCache:
    """Choose one cache: the location itself, or the only one below it with this size and recipe.

    Raises
    ------
    UsageError
        If several match; the message lists them.
    CacheError
        If none does, or its manifest is damaged.
    StorageError
        If the store cannot be read.
    """
    place = _choose(location, size_px, recipe)
    return FoundCache(place, _read_manifest(place))


def _choose(location: Location, size_px: int | None, recipe: str | None) -> Location:
    found = find_caches(location)
    is_free = size_px is None and recipe is None
    fitting = found if is_free and len(found) == 1 else [place for place in found if _fits(place, size_px, recipe)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = "".join(f"\n  {place}" for place in fitting)
        raise UsageError(f"several caches at {location}, name one:{choices}")
    wanted = "cache" + (f" of {size_px} px" if size_px is not None else "") + (f" of recipe {recipe}" if recipe else "")
    options = (f" --size {size_px}" if size_px is not None else "") + (f" --recipe {recipe}" if recipe else "")
    make = f"make one with `ldata build SOURCE{options}`"
    cure = make if isinstance(location, Path) else f"copy one there with `ldata push CACHE {location}`"
    others = f" (there are: {', '.join(map(str, found))})" if found else ""
    raise CacheError(f"no {wanted} at {location}{others}; {cure}")


def _fits(place: Location, size_px: int | None, recipe: str | None) -> bool:
    """Whether a cache has this size and recipe; a damaged one does not match, so that others are found."""
    try:
        manifest = _read_manifest(place)
    except CacheError:
        return False
    return size_px in (None, manifest.size_px) and recipe in (None, manifest.recipe.name)


def choose_folder(location: Location, refusal: str, *, size_px: int | None = None) -> tuple[Path, Manifest]:
    """Choose one cache as :func:`choose_cache` does, for operations on folders only.

    Raises
    ------
    UsageError
        If the location is an address; `refusal` is the reason.
    """
    place = _choose(location, size_px, None) if isinstance(location, Path) else location
    if not isinstance(place, Path):
        raise UsageError(f"{location}: {refusal}")
    return place, load_manifest(place)


def open_chosen_cache(
    location: Location,
    copies: LocalCopiesChoice = DEFAULT_COPIES,
    *,
    size_px: int | None = None,
    recipe: str | None = None,
) -> Cache:
    """Choose one cache as :func:`choose_cache` does, and open it.

    Parameters
    ----------
    copies
        Folder of local copies for a cache at a URL.

    Raises
    ------
    UsageError, CacheError, StorageError
        If there is none, several match, or it cannot be opened.
    """
    place = _choose(location, size_px, recipe)
    if isinstance(place, Path):
        from leukemia_data.caches.cache import open_cache

        return open_cache(place)
    from leukemia_data.caches.remote_cache import open_remote_cache
    from leukemia_data.stores.object_store import open_store

    return open_remote_cache(open_store(place), copies.open())


def fingerprints(location: Location) -> dict[Location, str]:
    """Return the fingerprints of the caches at or below a location; unreadable ones are left out."""
    return {found.location: found.manifest.fingerprint for found in list_caches(location)}


def lasting_name(cache: Cache) -> str:
    """Return the cache's absolute path or address."""
    return str(cache.location.resolve() if isinstance(cache.location, Path) else cache.location)
