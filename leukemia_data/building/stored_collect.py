"""Garbage collection in an object store: find and remove what no manifest names and is older than a day.

A store knows no lock, so a build may be at work: what it has uploaded is fresh, and left alone. Only objects that this
project writes, told by their names, are ever touched.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from leukemia_data.building.collect import is_cache_dir_name, is_cache_file_name, is_receipt_name
from leukemia_data.building.receipts import RECEIPTS_DIR
from leukemia_data.caches.manifest import MANIFEST_NAME, parse_manifest
from leukemia_data.errors import CacheError
from leukemia_data.storage.faults import MissingObjectError
from leukemia_data.storage.object_store import ObjectStore, StoredObject
from leukemia_data.storage.url import Url

MOST_AGE_NS = 24 * 3600 * 10**9
"""What is younger may belong to a build that is at work."""


@dataclass(frozen=True, slots=True)
class StoredGarbage:
    """Objects of one cache that no manifest names."""

    url: Url
    names: tuple[str, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredCollectReport:
    """What was found or removed, and the caches that could not be looked at, with reasons."""

    garbage: tuple[StoredGarbage, ...]
    skipped: tuple[str, ...]


def collect_stored_garbage(store: ObjectStore, *, remove: bool, now_ns: int) -> StoredCollectReport:
    """Find the garbage of every cache at or below an address, and remove it if told so.

    Parameters
    ----------
    store
        The address.
    remove
        Whether to remove it.
    now_ns
        The clock, in nanoseconds since 1970.

    Raises
    ------
    StorageError
        If the store cannot be read or denies the removal.
    """
    garbage: list[StoredGarbage] = []
    skipped: list[str] = []
    for folder, objects in _cache_folders(store).items():
        cache = store.below(folder) if folder else store
        old = {name: state for name, state in objects.items() if state.modified_ns < now_ns - MOST_AGE_NS}
        try:
            # After the listing: what a commit of just now names is in it.
            named = _named(cache)
        except CacheError as error:
            skipped.append(str(error))
            continue
        found = {name: state for name, state in old.items() if _is_ours(name) and name not in named}
        if found:
            num_bytes = sum(state.num_bytes for state in found.values())
            garbage.append(StoredGarbage(cache.url, tuple(sorted(found)), num_bytes))
            if remove:
                cache.delete(*found)
    return StoredCollectReport(tuple(garbage), tuple(skipped))


def _cache_folders(store: ObjectStore) -> dict[str, dict[str, StoredObject]]:
    """Objects of each folder that is a cache or looks like one, the address itself and up to two levels below it."""
    folders: dict[str, dict[str, StoredObject]] = defaultdict(dict)
    for path, state in store.iterate():
        parts = path.split("/")
        depth = len(parts) - (2 if len(parts) > 1 and parts[-2] == RECEIPTS_DIR else 1)
        folders["/".join(parts[:depth])]["/".join(parts[depth:])] = state
    return {
        folder: objects
        for folder, objects in folders.items()
        if folder.count("/") < 2
        and (MANIFEST_NAME in objects or is_cache_dir_name((store.url / folder).name if folder else store.url.name))
    }


def _named(cache: ObjectStore) -> set[str]:
    try:
        data = cache.read(MANIFEST_NAME)
    except MissingObjectError:
        return set()
    return parse_manifest(data.decode("utf-8", "replace"), cache.url / MANIFEST_NAME).file_names()


def _is_ours(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return is_receipt_name(file) if folder == RECEIPTS_DIR else not folder and is_cache_file_name(file)
