"""Caches in object stores: found, opened, and mirrored for builds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from leukemia_data.caches.cache import Cache, comparable_table
from leukemia_data.caches.hdf5_file import check_fit, map_table
from leukemia_data.caches.local_copies import Fetched, LocalCopies
from leukemia_data.caches.manifest import MANIFEST_NAME, IndexEntry, Manifest, is_intact, parse_manifest
from leukemia_data.caches.range_reader import RangeReader
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.atomic import atomic_path, remove_file
from leukemia_data.records.sample_table import PixelReader, SampleTable
from leukemia_data.stores.faults import MissingObjectError
from leukemia_data.stores.object_store import ObjectStore, StoredObject, StoredUrl, open_store
from leukemia_data.stores.url import Location, Url

_POLL_S = 0.1


@dataclass(frozen=True, repr=False)
class RemoteCache(Cache):
    """A committed cache in an object store, and its sample table.

    ``directory`` is the folder of local copies of its index and shards.
    """

    store: ObjectStore
    copies: LocalCopies

    @property
    def location(self) -> Location:
        """The address of the cache."""
        return self.store.url

    @property
    def is_fetched(self) -> bool:
        """True: its files are local copies."""
        return True

    @property
    def traffic_text(self) -> str:
        """Summary of the downloads so far; empty without any."""
        reader = self.__dict__.get("reader")
        return str(reader.traffic) if isinstance(reader, RangeReader) else ""

    @cached_property
    def reader(self) -> PixelReader:
        """Reader of the cache's pixels, from local copies if they exist."""
        return RangeReader(self.store, self.copies, self.manifest, self.table.crcs, self.first_rows)

    def close(self) -> None:
        """Stop downloading, and release the maps; streams in use keep working."""
        reader = self.__dict__.pop("reader", None)
        if isinstance(reader, RangeReader):
            reader.close()


def open_remote_cache(store: ObjectStore, copies: LocalCopies) -> RemoteCache:
    """Open the cache in a store's folder.

    Raises
    ------
    CacheError
        If there is no readable manifest, no room for the index, or the index does not match it.
    StorageError
        If the store cannot be read.
    """
    manifest = read_manifest(store)
    table = _fetch_table(store, manifest, copies)
    check_fit(copies.directory, manifest, table)
    return RemoteCache(copies.directory, manifest, comparable_table(manifest, table), store, copies)


def read_manifest(store: ObjectStore) -> Manifest:
    """Read the manifest of the cache in a store's folder.

    Raises
    ------
    CacheError
        If it is missing or damaged.
    StorageError
        If the store cannot be read.
    """
    try:
        data = store.read(MANIFEST_NAME)
    except MissingObjectError:
        raise CacheError(
            f"{store.url} holds no {MANIFEST_NAME}: no cache, or one that is not yet copied or built whole"
        ) from None
    return parse_manifest(data, store.url / MANIFEST_NAME)


def find_remote_caches(url: Url) -> list[Url]:
    """Return the addresses of all committed caches: `url` itself, or up to two levels below it."""
    return _find_below(open_store(url), "", 2)


def _find_below(store: ObjectStore, folder: str, depth: int) -> list[Url]:
    """Return the folder if it is a cache, else the caches below it."""
    if store.stat(f"{folder}{MANIFEST_NAME}") is not None:
        return [store.url / folder.rstrip("/") if folder else store.url]
    if depth == 0:
        return []
    below = [f"{folder}{name}/" for name in store.folders(folder.rstrip("/"))]
    return [url for each in below for url in _find_below(store, each, depth - 1)]


def _fetch_table(store: ObjectStore, manifest: Manifest, copies: LocalCopies) -> SampleTable:
    _fetch_index(store, manifest.index, copies)
    try:
        table = map_table(copies.directory, manifest.index)
    except CacheError:
        # The copy of an earlier process was damaged since.
        if copies.is_intact(manifest.index):
            raise
        copies.discard(manifest.index.name)
        return _fetch_table(store, manifest, copies)
    copies.use(manifest.index)
    return table


def _fetch_index(store: ObjectStore, entry: IndexEntry, copies: LocalCopies) -> None:
    while (fetched := copies.fetch(store, entry)) is Fetched.BUSY:
        # Another process of this machine is downloading it.
        time.sleep(_POLL_S)
    if fetched is Fetched.NO_ROOM:
        raise CacheError(
            f"{copies.directory} has no room for the index of {store.url} ({entry.num_bytes:,} bytes): allow it more "
            "(`--local-copies-gb`), or name another folder (`--local-copies`)"
        )


@dataclass(frozen=True, slots=True)
class StoredCache:
    """State of a cache in a store when a build was planned.

    `manifest_state` is None without a manifest; `files` are the sizes in bytes of all objects, by name.
    """

    url: StoredUrl
    manifest_state: StoredObject | None
    files: Mapping[str, int]

    def holds(self, manifest: Manifest) -> bool:
        """Return whether every file in the manifest exists with its size."""
        return all(self.files.get(entry.name) == entry.num_bytes for entry in manifest.entries)


def refresh_mirror(url: StoredUrl, directory: Path) -> StoredCache:
    """Download a cache's manifest and index into a directory, which must exist, and list its objects."""
    store = url.store
    state, data = read_manifest_object(store)
    files = {name: found.num_bytes for name, found in store.iterate() if "/" not in name}
    if data is None:
        remove_file(directory / MANIFEST_NAME)
        return StoredCache(url, None, files)
    with atomic_path(directory / MANIFEST_NAME) as partial:
        partial.write_bytes(data)
    # Planning reads a damaged manifest again and reports that it cannot be used.
    with suppress(CacheError):
        _mirror_index(store, directory, parse_manifest(data, url / MANIFEST_NAME).index)
    return StoredCache(url, state, files)


def read_manifest_object(store: ObjectStore) -> tuple[StoredObject | None, bytes | None]:
    """Return the state and bytes of a cache's manifest, consistent with each other; None and None without one."""
    for _ in range(5):
        state = store.stat(MANIFEST_NAME)
        if state is None:
            return None, None
        try:
            data = store.read(MANIFEST_NAME)
        except MissingObjectError:
            continue
        if store.stat(MANIFEST_NAME) == state:
            return state, data
    raise StorageError(f"{store.url / MANIFEST_NAME} changes all the time: try again when nothing writes to it")


def _mirror_index(store: ObjectStore, directory: Path, entry: IndexEntry) -> None:
    """Download the index if it is missing here; its reader reports an index missing from the store."""
    if is_intact(directory, entry):
        return
    for other in directory.glob("index-*.h5"):
        remove_file(other)
    with suppress(MissingObjectError):
        store.download(entry.name, directory / entry.name)
