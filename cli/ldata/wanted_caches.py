"""The caches that a build's command line asks for: where they lie, which are there already, and in which commit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.ldata.cache_text import cache_lines, cache_summary
from cli.output import print_json, print_text
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, cache_dir_name, find_current, source_state
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.fingerprint import cache_fingerprint
from leukemia_data.sources.source import SourceListing
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.caches.remote_cache import StoredCache

Commits = Mapping[Path, tuple[int, int, int]]
"""By cache directory: the manifest's identity, which each commit changes."""


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source's listing, the clock (ns since the epoch) and the wanted caches' commits when it was begun."""

    listing: SourceListing
    listed_at_ns: int
    commits: Commits


@dataclass(frozen=True, slots=True)
class WantedCaches:
    """One cache a size, of whichever name the source will give them.

    ``shard_capacity`` is what the user asks for, see :meth:`leukemia_data.caches.manifest.Manifest.is_cut_as`; `codec`
    is None where any will do.
    """

    cache_root: Path
    recipe: Recipe
    sizes_px: tuple[int, ...]
    opencv_version: str
    shard_capacity: int | None = None
    codec: str | None = None

    def directories(self, name: str) -> list[Path]:
        """Where the caches of a name lie."""
        return [self.cache_root / name / dir_name for dir_name in self._dir_names()]

    def current(self, name: str, listing: SourceListing) -> Mapping[Location, Manifest]:
        """Those that hold a source in exactly this state already."""
        state = source_state(listing.classes, listing.records, listing.reading.to_record())
        found: dict[Location, Manifest | None]
        found = {directory: find_current(directory, state) for directory in self.directories(name)}
        return {
            directory: manifest
            for directory, manifest in found.items()
            if manifest is not None and self.suits(manifest)
        }

    def suits(self, manifest: Manifest) -> bool:
        """Whether a cache's shards are laid out as they shall be."""
        return manifest.is_cut_as(self.shard_capacity) and self.codec in (None, manifest.codec)

    def commits(self) -> Commits:
        """Present commits of all names' caches."""
        found = {}
        for dir_name in self._dir_names():
            for path in self.cache_root.glob(f"*/{dir_name}/{MANIFEST_NAME}"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    found[path.parent] = status.st_ino, status.st_size, status.st_mtime_ns
        return found

    def stored(self, name: str) -> Mapping[Path, StoredCache] | None:
        """What a build is planned on where the caches lie in a store; None where they lie in their directories."""
        return None

    def _dir_names(self) -> list[str]:
        return [
            cache_dir_name(size_px, cache_fingerprint(self.recipe, size_px, self.opencv_version))
            for size_px in self.sizes_px
        ]


def print_unchanged(manifests: Mapping[Location, Manifest], num_images: int, seconds: float, *, as_json: bool) -> None:
    """Say that every cache is there already."""
    if as_json:
        print_json(
            {
                "changed": False,
                "num_images": num_images,
                "num_processed": 0,
                "seconds": round(seconds, 3),
                "caches": [cache_summary(directory, manifest) for directory, manifest in manifests.items()],
            }
        )
        return
    print_text(f"Nothing to do: {num_images:,} images unchanged ({seconds:.2f} s)")
    for line in cache_lines(list(manifests.items())):
        print_text(line)
