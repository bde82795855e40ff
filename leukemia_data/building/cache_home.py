"""Where a build's caches are to lie: what it asks of that place before, while and after its shards are made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from leukemia_data.building.pending_plan import clear_receipts
from leukemia_data.building.plan import BuildPlan
from leukemia_data.caches.manifest import Manifest, is_whole, save_manifest
from leukemia_data.caches.manifest_entries import ShardEntry
from leukemia_data.errors import BuildError
from leukemia_data.files.atomic import sync_directory, sync_file


class CacheHome(Protocol):
    """Takes what a build makes."""

    def check(self, plan: BuildPlan) -> None:
        """Raise BuildError if the plan cannot be carried out: shards to keep are gone, or there is too little room."""
        ...

    def check_made(self, directory: Path, entry: ShardEntry) -> None:
        """Raise BuildError if a shard that a worker, maybe on another machine, says it made is not there."""
        ...

    def flush(self, path: Path) -> None:
        """Make a finished shard durable."""
        ...

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Make a cache what its manifest says; all its shards and its index, in `directory`, are written."""
        ...


class DiskHome:
    """The directories of the plan themselves.

    Parameters
    ----------
    is_made
        The shards need no more room, because they are on disk already.
    """

    def __init__(self, *, is_made: bool = False) -> None:
        self._is_made = is_made

    def check(self, plan: BuildPlan) -> None:
        """Raise BuildError if a shard to keep is gone, or there is too little room."""
        _check_kept_shards(plan)
        if not self._is_made:
            _check_free_space(plan)

    def check_made(self, directory: Path, entry: ShardEntry) -> None:
        """Raise BuildError if there is no such shard here: workers may see another disk."""
        if not is_whole(directory, entry):
            raise BuildError(
                f"{directory / entry.name} was made by a worker but is not there: do all workers see this folder?"
            )

    def flush(self, path: Path) -> None:
        """Block until the shard is on disk."""
        sync_file(path)

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Replace the manifest; then the receipts have served."""
        sync_directory(directory)
        save_manifest(directory, manifest)
        clear_receipts(directory)


def _check_kept_shards(plan: BuildPlan) -> None:
    """Refuse a plan that another build and gc have overtaken: plans are made before the lock is taken."""
    for target in plan.targets:
        for kept in target.kept:
            if kept is not None and not is_whole(target.target.directory, kept.entry):
                raise BuildError(
                    f"{target.target.directory / kept.entry.name} vanished while this build was being planned: "
                    "another build and gc were faster; build again"
                )


def _check_free_space(plan: BuildPlan) -> None:
    directory = plan.targets[0].target.directory
    needed, free = plan.bytes_to_write(), shutil.disk_usage(directory).free
    if needed > free:
        raise BuildError(
            f"not enough room at {directory}: the build writes {needed:,} bytes, {free:,} are free; "
            "make room, name another place with --cache, or build one --size at a time"
        )
