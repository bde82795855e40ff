"""The caches that a build's command line asks for at an address. Loading this loads fsspec."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.ldata.wanted_caches import Commits, WantedCaches
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, parse_manifest, source_state
from leukemia_data.caches.remote_cache import Mirror, StoredCache, mirror_of, read_manifest_object
from leukemia_data.errors import CacheError
from leukemia_data.operations.recipe import Recipe
from leukemia_data.sources.source import SourceListing
from leukemia_data.stores.object_store import stored_url
from leukemia_data.stores.url import Location, Url


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCaches(WantedCaches):
    """One cache a size in a store; ``cache_root`` is the mirror's directory."""

    mirror: Mirror

    def current(self, name: str, listing: SourceListing) -> Mapping[Location, Manifest]:
        """Those that hold a source in exactly this state already, by address."""
        state = source_state(listing.classes, listing.records, listing.reading.to_record())
        found = {self.mirror.url_of(directory): self._find(directory, state) for directory in self.directories(name)}
        return {url: manifest for url, manifest in found.items() if manifest is not None}

    def commits(self) -> Commits:
        """Present commits of all names' caches."""
        store = self.mirror.url.store
        found = {}
        for name in store.folders():
            for directory in self.directories(name):
                state = store.stat(f"{name}/{directory.name}/{MANIFEST_NAME}")
                if state is not None:
                    found[directory] = zlib.crc32(state.tag.encode()), state.num_bytes, state.modified_ns
        return found

    def stored(self, name: str) -> Mapping[Path, StoredCache] | None:
        """The caches as they are now; their manifests and indexes are brought into the mirror."""
        return {directory: self.mirror.refresh(directory) for directory in self.directories(name)}

    def _find(self, directory: Path, state: str) -> Manifest | None:
        url = self.mirror.url_of(directory)
        found, data = read_manifest_object(url.store)
        if data is None:
            return None
        try:
            manifest = parse_manifest(data.decode("utf-8", "replace"), url)
        except CacheError:
            return None
        if not (manifest.is_current(state) and self.suits(manifest)):
            return None
        files = {file: entry.num_bytes for file, entry in url.store.iterate() if "/" not in file}
        return manifest if StoredCache(url, found, files).holds(manifest) else None


def stored_caches(
    url: Url,
    stage: Path,
    recipe: Recipe,
    sizes_px: tuple[int, ...],
    opencv_version: str,
    shard_capacity: int | None,
    codec: str | None,
) -> StoredCaches:
    """The caches below an address, mirrored in a stage's folder."""
    mirror = mirror_of(stored_url(url), stage)
    return StoredCaches(mirror.directory, recipe, sizes_px, opencv_version, shard_capacity, codec, mirror=mirror)
