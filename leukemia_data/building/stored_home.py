"""A build's caches in an object store: shards are there already, the index follows, the manifest is last.

A store knows no lock. What stands for one is a condition: the manifest is replaced only if it is still the one that the
build was planned on. Of two builds at once the second to commit is refused; its shards stay for the next build, and
nothing that a manifest does not name is ever read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from leukemia_data.building.plan import BuildPlan
from leukemia_data.building.shard_task import RECEIPTS_DIR
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, ShardEntry, manifest_text, save_manifest
from leukemia_data.caches.remote_cache import StoredCache
from leukemia_data.errors import BuildError, listed
from leukemia_data.stores.faults import ConflictError
from leukemia_data.stores.object_store import ObjectStore


class StoredHome:
    """Takes what a build makes for caches in a store.

    Parameters
    ----------
    caches
        By directory of the mirror: the caches as the plan knows them.
    """

    def __init__(self, caches: Mapping[Path, StoredCache]) -> None:
        self._caches = caches

    def check(self, plan: BuildPlan) -> None:
        """Nothing to check: the listing that tells the shards to keep was made for this plan, and a store has room."""

    def check_made(self, directory: Path, entry: ShardEntry) -> None:
        """Nothing to do: the worker that made it has uploaded it, and the commit looks for all of them."""

    def flush(self, path: Path) -> None:
        """Nothing to do: what was uploaded is durable."""

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Upload the index, see that all shards are there, replace the manifest if it is still the one known.

        Raises
        ------
        BuildError
            If another build committed meanwhile, or a shard is gone.
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
        self._replace_manifest(store, cache, manifest)
        save_manifest(directory, manifest)
        store.delete(*(name for name in found if name.startswith(f"{RECEIPTS_DIR}/")))

    def _replace_manifest(self, store: ObjectStore, cache: StoredCache, manifest: Manifest) -> None:
        try:
            store.write_over(MANIFEST_NAME, manifest_text(manifest).encode(), cache.manifest_state)
        except ConflictError as error:
            raise BuildError(
                f"{cache.url}: another build committed while this one was at work; nothing of it was changed. "
                "Build again, it takes over what is finished"
            ) from error
