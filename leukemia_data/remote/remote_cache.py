"""Open, find and choose caches in object stores.

A cache there is what it is on disk: a folder with a manifest, shards and an index. Opening it fetches the manifest and
the index; shards stay where they are until samples are read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leukemia_data.caches.cache import Cache, PixelReader, choose_cache_dir, comparable_table, open_cache
from leukemia_data.caches.cache_choice import choose_only
from leukemia_data.caches.index import check_fit, map_table
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, parse_manifest
from leukemia_data.caches.manifest_entries import IndexEntry
from leukemia_data.errors import CacheError
from leukemia_data.remote.staged_reader import StagedReader
from leukemia_data.remote.staging import Fetched, Stage
from leukemia_data.samples.sample_table import SampleTable
from leukemia_data.storage.faults import MissingObjectError
from leukemia_data.storage.object_store import ObjectStore, open_store
from leukemia_data.storage.url import Location, Url

_DEPTH = 2
_POLL_S = 0.1


@dataclass(frozen=True)
class RemoteCache(Cache):
    """A committed cache in an object store, and its sample table.

    ``directory`` is the stage, in which its index lies and its shards will.
    """

    store: ObjectStore
    stage: Stage

    @property
    def location(self) -> Location:
        """The address of the cache."""
        return self.store.url

    @property
    def is_fetched(self) -> bool:
        """True: the stage holds copies."""
        return True

    @property
    def traffic_text(self) -> str:
        """What was staged and read by ranges so far; empty where nothing was."""
        reader = self.__dict__.get("reader")
        return str(reader.traffic) if isinstance(reader, StagedReader) and reader.traffic.is_any else ""

    @cached_property
    def reader(self) -> PixelReader:
        """The cache's pixels, from the stage as far as they are there."""
        return StagedReader(self.store, self.stage, self.manifest, self.table.crcs, self.first_rows)

    def close(self) -> None:
        """End the staging, and let go of the maps; streams that are still in use read on."""
        reader = self.__dict__.pop("reader", None)
        if isinstance(reader, StagedReader):
            reader.close()


def open_location(location: Location, stage: Stage) -> Cache:
    """Open the cache in a directory or at an address.

    Raises
    ------
    CacheError
        If there is no readable manifest, or the index does not fit it.
    StorageError
        If the store cannot be read.
    """
    return open_cache(location) if isinstance(location, Path) else open_remote_cache(open_store(location), stage)


def open_remote_cache(store: ObjectStore, stage: Stage) -> RemoteCache:
    """Open the cache whose folder a store is.

    Raises
    ------
    CacheError
        If there is no readable manifest, there is no room for the index, or it does not fit the manifest.
    StorageError
        If the store cannot be read.
    """
    manifest = read_manifest(store)
    table = _fetch_table(store, manifest, stage)
    check_fit(stage.directory, manifest, table)
    return RemoteCache(stage.directory, manifest, comparable_table(manifest, table), store, stage)


def read_manifest(store: ObjectStore) -> Manifest:
    """The manifest of the cache whose folder a store is.

    Raises
    ------
    CacheError
        If there is none, or it is damaged.
    StorageError
        If the store cannot be read.
    """
    try:
        data = store.read(MANIFEST_NAME)
    except MissingObjectError:
        raise CacheError(
            f"{store.url} holds no {MANIFEST_NAME}: no cache, or one that is not yet copied or built whole"
        ) from None
    return parse_manifest(data.decode("utf-8", "replace"), store.url / MANIFEST_NAME)


def read_manifest_at(url: Url) -> Manifest:
    """The manifest of the cache at an address: see :func:`read_manifest`."""
    return read_manifest(open_store(url))


def find_remote_caches(url: Url) -> list[Url]:
    """Addresses of all committed caches: `url` itself, or up to two levels below it."""
    return _find_below(open_store(url), "", _DEPTH)


def choose_location(location: Location, *, size_px: int | None = None, recipe: str | None = None) -> Location:
    """The one cache that a directory or an address means: itself, or the only matching cache below it.

    Raises
    ------
    UsageError
        If several match; the message lists them.
    CacheError
        If none does.
    StorageError
        If the store cannot be read.
    """
    if isinstance(location, Path):
        return choose_cache_dir(location, size_px=size_px, recipe=recipe)
    return choose_only(
        find_remote_caches(location),
        read_manifest_at,
        where=location,
        size_px=size_px,
        recipe=recipe,
        cure=f"copy one there with `ldata push CACHE {location}`",
    )


def _find_below(store: ObjectStore, folder: str, depth: int) -> list[Url]:
    """Caches in a folder, which are searched no further, or in those below it."""
    if store.stat(f"{folder}{MANIFEST_NAME}") is not None:
        return [store.url / folder.rstrip("/") if folder else store.url]
    if depth == 0:
        return []
    below = [f"{folder}{name}/" for name in store.folders(folder.rstrip("/"))]
    return [url for each in below for url in _find_below(store, each, depth - 1)]


def _fetch_table(store: ObjectStore, manifest: Manifest, stage: Stage) -> SampleTable:
    _fetch_index(store, manifest.index, stage)
    try:
        table = map_table(stage.directory, manifest.index)
    except CacheError:
        # It was staged by an earlier process, and damaged since.
        if stage.is_intact(manifest.index):
            raise
        stage.discard(manifest.index.name)
        _fetch_index(store, manifest.index, stage)
        table = map_table(stage.directory, manifest.index)
    stage.use(manifest.index)
    return table


def _fetch_index(store: ObjectStore, entry: IndexEntry, stage: Stage) -> None:
    while (fetched := stage.fetch(store, entry)) is Fetched.BUSY:
        # Another process of this machine brings it.
        time.sleep(_POLL_S)
    if fetched is Fetched.NO_ROOM:
        raise CacheError(
            f"{stage.directory} has no room for the index of {store.url} ({entry.num_bytes:,} bytes): allow it more "
            "with --stage-gb, or name another folder with --stage-dir"
        )
