"""What the measurements of one size start from: a made cache, and a folder of empty files with the same names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leukemia_data.building.planned_tasks import default_capacity
from leukemia_data.caches.manifest import source_state
from scale.made_cache import write_sparse_cache
from scale.made_samples import CLASSES, made_ids, made_records


def prepare(work: Path, num_samples: int, size_px: int, *, with_files: bool) -> None:
    """Make both below a folder."""
    state = source_state(CLASSES, made_records(num_samples))
    write_sparse_cache(work, num_samples, size_px, default_capacity(num_samples), state)
    if with_files:
        _write_files(work / "files", num_samples)


def _write_files(root: Path, num_samples: int) -> None:
    folders = set()
    for name in made_ids(np.arange(num_samples, dtype=np.int64)).tolist():
        path = root / name.decode()
        if path.parent not in folders:
            path.parent.mkdir(parents=True)
            folders.add(path.parent)
        path.touch()
