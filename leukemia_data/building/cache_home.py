"""Where a build's caches are to lie: what it asks of that place before, while and after its shards are made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from leukemia_data.building.plan import BuildPlan
from leukemia_data.building.receipts import RECEIPTS_DIR
from leukemia_data.caches.manifest import Manifest, is_whole, save_manifest
from leukemia_data.errors import BuildError
from leukemia_data.files.atomic import sync_directory, sync_file


class CacheHome(Protocol):
    """Takes what a build makes."""

    def check(self, plan: BuildPlan) -> None:
        """Raise BuildError if the plan cannot be carried out: shards to keep are gone, or there is too little room."""
        ...

    def flush(self, path: Path) -> None:
        """Make a finished shard durable."""
        ...

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Make a cache what its manifest says; all its shards and its index, in `directory`, are written."""
        ...


class DiskHome:
    """The directories of the plan themselves."""

    def check(self, plan: BuildPlan) -> None:
        """Raise BuildError if a shard to keep is gone, or there is too little room."""
        _check_kept_shards(plan)
        _check_free_space(plan)

    def flush(self, path: Path) -> None:
        """Block until the shard is on disk."""
        sync_file(path)

    def commit(self, directory: Path, manifest: Manifest) -> None:
        """Replace the manifest; then the receipts have served."""
        sync_directory(directory)
        save_manifest(directory, manifest)
        shutil.rmtree(directory / RECEIPTS_DIR, ignore_errors=True)


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
