"""Open the cache that a command line means, on this machine or in an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.stage_options import LocalCopiesChoice
from leukemia_data.caches.cache import Cache, choose_cache_dir, find_cache_dirs, open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.errors import CacheError
from leukemia_data.stores.url import Location


def open_chosen_cache(
    location: Location, stage: LocalCopiesChoice, *, size_px: int | None = None, recipe: str | None = None
) -> Cache:
    """Open the one cache that a location means: itself, or the only matching one below it.

    Raises
    ------
    UsageError, CacheError, StorageError
        If there is none, several match, or it cannot be opened.
    """
    if isinstance(location, Path):
        return open_cache(choose_cache_dir(location, size_px=size_px, recipe=recipe))
    # Loads fsspec, for which a cache on disk has no use.
    from leukemia_data.caches.remote_cache import choose_location, open_location

    return open_location(choose_location(location, size_px=size_px, recipe=recipe), stage.open())


def fingerprints(location: Location) -> dict[Location, str]:
    """Fingerprints of the caches at or below a location; those that cannot be read are left out."""
    if isinstance(location, Path):
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
