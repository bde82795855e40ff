"""Commit caches to an object store: shards are uploaded first, then the index, then the manifest.

Stores have no locks. Instead, the manifest is replaced only if it is still the one that the build was planned on. Of
two concurrent builds the second commit fails; its shards are kept for the next build. Imports fsspec.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leukemia_data.building.plan import BuildPlan
from leukemia_data.building.shard_task import RECEIPTS_DIR
from leukemia_data.caches.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardEntry,
    manifest_text,
    parse_manifest,
    save_manifest,
)
from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.caches.remote_cache import StoredCache, read_manifest_object, refresh_mirror
from leukemia_data.errors import BuildError, CacheError, listed
from leukemia_data.records.fingerprint import lines_digest
from leukemia_data.stores.faults import ConflictError
from leukemia_data.stores.object_store import StoredUrl, stored_url
from leukemia_data.stores.url import Url


@dataclass(frozen=True, slots=True)
class StorePlace:
    """Caches in a store, mirrored in a folder; see :class:`leukemia_data.building.build_request.CachePlace`."""

    url: StoredUrl
    root: Path

    def location(self, directory: Path) -> StoredUrl:
        """Return the address of the cache for a directory of the mirror."""
        return self.url / directory.relative_to(self.root).as_posix()

    def find_current(self, directory: Path, state: str, suits: Callable[[Manifest], bool]) -> Manifest | None:
        """Return a complete cache's manifest if it has this source state and `suits`; else None."""
        url = self.location(directory)
        found, data = read_manifest_object(url.store)
        try:
            manifest = parse_manifest(data or "", url)
        except CacheError:
            return None
        if not (manifest.is_current(state) and suits(manifest)):
            return None
        files = {file: entry.num_bytes for file, entry in url.store.iterate() if "/" not in file}
        return manifest if StoredCache(url, found, files).holds(manifest) else None

    def commits(self, dir_names: Sequence[str]) -> Mapping[Path, tuple[int, int, int]]:
        """Return the current commits of all caches in directories of these names."""
        store = self.url.store
        found = {}
        for name in store.folders():
            for dir_name in dir_names:
                state = store.stat(f"{name}/{dir_name}/{MANIFEST_NAME}")
                if state is not None:
                    identity = zlib.crc32(state.tag.encode()), state.num_bytes, state.modified_ns
                    found[self.root / name / dir_name] = identity
        return found

    def stored(self, directories: Sequence[Path]) -> Mapping[Path, StoredCache]:
        """Download manifests and indexes into the mirror, and return the caches' current states."""
        return {directory: refresh_mirror(self.location(directory), directory) for directory in directories}


def stored_place(url: Url, copies_dir: Path | None) -> StorePlace:
    """Return the place of caches below an address; the mirror is in the folder of local copies."""
    stored = stored_url(url)
    copies = LocalCopiesChoice(copies_dir).open().directory
    return StorePlace(stored, copies / "mirrors" / lines_digest([str(stored)])[:16])


class StoreCommitTarget:
    """Commits caches, by directory of the mirror; see :class:`leukemia_data.building.build.CommitTarget`."""

    def __init__(self, caches: Mapping[Path, StoredCache]) -> None:
        self._caches = caches

    def check(self, plan: BuildPlan) -> None:
        """Check nothing: the plan lists the store's shards, and free space is not limited."""

    def check_made(self, directory: Path, entry: ShardEntry) -> None:
        """Check nothing: workers upload their shards, and :meth:`commit` looks for all of them."""

    def flush(self, path: Path) -> None:
        """Do nothing: uploaded objects are durable."""

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Upload the index, check that all shards exist, and replace the manifest if it is still the planned one.

        Raises
        ------
        BuildError
            If another build committed meanwhile, or a shard is missing.
        StorageError
            If the store cannot be reached.
        """
        cache = self._caches[directory]
        store = cache.url.store
        store.upload(manifest.index.name, directory / manifest.index.name)
        found = store.entries()
        files = {name: state.num_bytes for name, state in found.items()}
        lacking = [shard.name for shard in manifest.shards if files.get(shard.name) != shard.num_bytes]
        if lacking:
            raise BuildError(
                f"{cache.url}: {len(lacking)} shards are gone ({listed(lacking, most=3)}): another build "
                "and gc were faster; build again"
            )
        try:
            store.write_over(MANIFEST_NAME, manifest_text(manifest).encode(), cache.manifest_state)
        except ConflictError as error:
            raise BuildError(
                f"{cache.url}: another build committed while this one was at work; nothing of it was changed. "
                "Build again, it takes over what is finished"
            ) from error
        save_manifest(directory, manifest)
        store.delete(*(name for name in found if name.startswith(f"{RECEIPTS_DIR}/")))
