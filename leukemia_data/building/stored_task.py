"""Run a shard task whose caches lie in object stores: work in a folder of its own, and upload what it made.

Each worker does this itself, so workers need no disk in common. A shard is uploaded as soon as it is made, then the
receipt beside it: a build that is stopped leaves both, and the next one takes the shard from there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from leukemia_data.building.receipts import RECEIPTS_DIR, receipt_path
from leukemia_data.building.shard_task import ShardResult, ShardTask, Target
from leukemia_data.errors import StorageError
from leukemia_data.files.scratch_folder import scratch_folder
from leukemia_data.storage.faults import MissingObjectError

# A shard is fetched if an eighth of the images, or more, may be in it.
_ENOUGH_ALIKE = 8


def run_stored(task: ShardTask, run: Callable[[ShardTask], ShardResult]) -> ShardResult:
    """Run a task, all of whose targets have addresses.

    Parameters
    ----------
    task
        Its targets' directories are not touched.
    run
        Runs the same task with folders of this machine as targets, which hold what an earlier run left.

    Raises
    ------
    StorageError
        If a store cannot be reached.
    """
    with scratch_folder("ldata-shard-") as scratch:
        local = replace(task, targets=tuple(_in_folder(target, scratch) for target in task.targets))
        if not all(_fetch_finished(task, target) for target in local.targets):
            _fetch_earlier(task, local)
        result = run(local)
        for target in local.targets:
            if target.size_px in result.entries:
                _upload(task, target, result)
    return result


def _in_folder(target: Target, scratch: Path) -> Target:
    directory = scratch / str(target.size_px)
    directory.mkdir()
    return replace(target, directory=directory)


def _fetch_finished(task: ShardTask, target: Target) -> bool:
    """Bring the receipt and the shard of an earlier run; whether both are there. `run` checks what they hold."""
    if target.stored_at is None:
        return False
    path, store = receipt_path(task, target), target.stored_at.store
    try:
        data = store.read(f"{RECEIPTS_DIR}/{path.name}")
        name = Path(str(json.loads(data)["shard"]["name"])).name
        store.download(name, target.directory / name)
    except (MissingObjectError, ValueError, TypeError, KeyError):
        return False
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return True


def _fetch_earlier(task: ShardTask, local: ShardTask) -> None:
    """Fetch the earlier shards that images are copied from. What is gone is made anew from the source."""
    for target in local.targets:
        for name in _shards_to_fetch(task, target.size_px):
            if target.stored_at is not None:
                with suppress(MissingObjectError):
                    target.stored_at.store.download(name, target.directory / name)


def _shards_to_fetch(task: ShardTask, size_px: int) -> list[str]:
    """Those that hold unchanged images, or so many that may be the same as making them costs more than the shard."""
    unchanged = {sample.rows[size_px][0] for sample in task.unchanged.values() if size_px in sample.rows}
    alike = Counter(sample.rows[size_px][0] for sample in task.by_digest.values() if size_px in sample.rows)
    return sorted(unchanged | {name for name, count in alike.items() if _ENOUGH_ALIKE * count >= len(task.records)})


def _upload(task: ShardTask, target: Target, result: ShardResult) -> None:
    if target.stored_at is None:
        raise StorageError(f"the {target.size_px} px cache has no address, others of the same build do")
    store, entry = target.stored_at.store, result.entries[target.size_px]
    # Even where it is there already: gc takes what is old and named by no manifest yet.
    store.upload(entry.name, target.directory / entry.name)
    receipt = receipt_path(task, target)
    if receipt.is_file():
        store.write(f"{RECEIPTS_DIR}/{receipt.name}", receipt.read_bytes())
