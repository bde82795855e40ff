"""Marks of plans that have not been committed yet: they keep a cache's finished shards and receipts from being removed.

The shares of a plan hold no lock, for there may be thousands on as many machines. Instead `ldata plan` and every share
leave a mark in each cache that the plan concerns. The commit removes it; one that nothing renewed for some days counts
no more.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from leukemia_data.building.receipts import RECEIPTS_DIR
from leukemia_data.files.atomic import scratch_path

MARK_NAME = re.compile(r"plan-[0-9a-f]{16}\.json")
KEPT_DAYS = 14
_KEPT_S = KEPT_DAYS * 24 * 3600


def mark_pending(directories: Iterable[Path], plan_digest: str, plan_path: Path) -> None:
    """Leave or renew a plan's mark in the caches that it concerns, whose directories are made."""
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        path = _mark_path(directory, plan_digest)
        with scratch_path(directory, path.name) as scratch:
            scratch.write_text(json.dumps({"plan": str(plan_path)}) + "\n", encoding="utf-8")
            scratch.replace(path)


def is_marked(directories: Iterable[Path], plan_digest: str) -> bool:
    """Whether a plan still waits to be committed: its first commit removes all its marks."""
    return any(_mark_path(directory, plan_digest).exists() for directory in directories)


def forget_plan(directories: Iterable[Path], plan_digest: str) -> None:
    """Remove a committed plan's marks, and the receipts that no other plan waits for."""
    for directory in directories:
        _mark_path(directory, plan_digest).unlink(missing_ok=True)
        clear_receipts(directory)


def clear_receipts(directory: Path) -> None:
    """Remove the receipts of a committed cache; those that a plan may wait for stay, ``gc`` knows their names."""
    if pending_mark(directory) is None:
        shutil.rmtree(directory / RECEIPTS_DIR, ignore_errors=True)


def pending_mark(directory: Path) -> Path | None:
    """The mark of a plan that waits for what is in a cache's directory; None where none does."""
    return next((path for path in _marks(directory) if not _is_over(path)), None)


def spent_marks(directory: Path) -> list[Path]:
    """Marks that count no more."""
    return [path for path in _marks(directory) if _is_over(path)]


def _mark_path(directory: Path, plan_digest: str) -> Path:
    return directory / f"plan-{plan_digest[:16]}.json"


def _marks(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("plan-*.json") if MARK_NAME.fullmatch(path.name))


def _is_over(mark: Path) -> bool:
    with suppress(OSError):
        return time.time() - mark.stat().st_mtime > _KEPT_S
    return True
