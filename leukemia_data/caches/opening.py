"""Open the cache that a path or a URL means: itself, or the only matching one below it.

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

from leukemia_data.errors import CacheError
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
    if isinstance(location, Path):
        from leukemia_data.caches.cache import choose_cache_dir, open_cache

        return open_cache(choose_cache_dir(location, size_px=size_px, recipe=recipe))
    from leukemia_data.caches.remote_cache import choose_location, open_location

    return open_location(choose_location(location, size_px=size_px, recipe=recipe), copies.open())


def fingerprints(location: Location) -> dict[Location, str]:
    """Fingerprints of the caches at or below a location; those that cannot be read are left out."""
    if isinstance(location, Path):
        from leukemia_data.caches.cache import find_cache_dirs
        from leukemia_data.caches.manifest import load_manifest

        return _readable(find_cache_dirs(location), load_manifest)
    from leukemia_data.caches.remote_cache import find_remote_caches, read_manifest_at

    return _readable(find_remote_caches(location), read_manifest_at)


def lasting_name(cache: Cache) -> str:
    """How a cache is named so that it is found again from any folder."""
    return str(cache.location.resolve() if isinstance(cache.location, Path) else cache.location)


def _readable(locations: list[Any], read: Callable[[Any], Any]) -> dict[Location, str]:
    found = {}
    for location in locations:
        try:
            found[location] = read(location).fingerprint
        except CacheError:
            continue
    return found
