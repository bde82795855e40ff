"""The mirror: a folder of this machine that holds manifests and indexes of the caches below one address.

A build into a store plans with it as if the caches lay there, and knows by a listing which of their shards do lie in
the store. Nothing in a mirror is needed again: whatever is missing or out of date is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, parse_manifest
from leukemia_data.caches.manifest_entries import IndexEntry, ShardEntry
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.samples.fingerprint import file_digest, lines_digest
from leukemia_data.storage.faults import MissingObjectError
from leukemia_data.storage.object_store import ObjectStore, StoredObject
from leukemia_data.storage.stored_url import StoredUrl

_MIRRORS_DIR = "mirrors"
_MOST_READS = 5


@dataclass(frozen=True, slots=True)
class StoredCache:
    """A cache in a store as a build found it.

    Attributes
    ----------
    url
        Its address.
    manifest_state
        State of its manifest's object; None where there is none.
    files
        Sizes in bytes of all its objects, by name.
    """

    url: StoredUrl
    manifest_state: StoredObject | None
    files: Mapping[str, int]

    def holds(self, manifest: Manifest) -> bool:
        """Whether every file that the manifest names is there with its size."""
        entries: list[ShardEntry | IndexEntry] = [*manifest.shards, manifest.index]
        return all(self.files.get(entry.name) == entry.num_bytes for entry in entries)


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of the caches below an address.

    Attributes
    ----------
    url
        The folder of caches in the store.
    directory
        The mirror itself.
    """

    url: StoredUrl
    directory: Path

    def url_of(self, directory: Path) -> StoredUrl:
        """Address of the cache that a directory of the mirror stands for."""
        return self.url / directory.relative_to(self.directory).as_posix()

    def refresh(self, directory: Path) -> StoredCache:
        """Bring the manifest and the index of a cache into its directory, which must exist; and list its objects.

        Raises
        ------
        StorageError
            If the store cannot be read.
        """
        url = self.url_of(directory)
        store = url.store
        state, data = read_manifest_object(store)
        files = {name: found.num_bytes for name, found in store.iterate() if "/" not in name}
        if data is None:
            (directory / MANIFEST_NAME).unlink(missing_ok=True)
            return StoredCache(url, None, files)
        with atomic_path(directory / MANIFEST_NAME) as partial:
            partial.write_bytes(data)
        try:
            index = parse_manifest(data.decode("utf-8", "replace"), url / MANIFEST_NAME).index
        except CacheError:
            # The plan reads it again and says that it cannot be used.
            return StoredCache(url, state, files)
        _fetch_index(store, directory, index)
        return StoredCache(url, state, files)


def mirror_of(url: StoredUrl, stage: Path) -> Mirror:
    """The mirror of an address in a stage's folder."""
    return Mirror(url, stage / _MIRRORS_DIR / lines_digest([str(url)])[:16])


def read_manifest_object(store: ObjectStore) -> tuple[StoredObject | None, bytes | None]:
    """State and bytes of a cache's manifest, which belong together; None and None where there is none."""
    for _ in range(_MOST_READS):
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


def _fetch_index(store: ObjectStore, directory: Path, entry: IndexEntry) -> None:
    """Bring an index that is not here; one that is not there either is told by whoever reads it."""
    path = directory / entry.name
    if path.is_file() and file_digest(path) == entry.digest:
        return
    for other in directory.glob("index-*.h5"):
        other.unlink(missing_ok=True)
    try:
        store.download(entry.name, path)
    except MissingObjectError:
        return
