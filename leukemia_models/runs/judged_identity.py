"""Which network and which samples judged numbers are of, so that no others are written over them unnoticed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leukemia_data.errors import RunError
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_data.splitting.splits import split_numbers
from leukemia_models.learning.checkpoint import Checkpoint
from leukemia_models.learning.checkpoint_tensors import tensors_digest
from leukemia_models.learning.weight_check import require_finite
from leukemia_models.reports.report import read_results
from leukemia_models.runs.data_identity import samples_digest
from leukemia_models.runs.run_files import RESULT_NAMES, RunFolder
from leukemia_models.runs.split_cache import SplitCache

WEIGHTS, SAMPLES = "weights", "samples"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers that are estimated anew for judging, and differ in their last digits with the batch size or the device."""


def judged_identity(checkpoint: Checkpoint, data: SplitCache, part: str) -> dict[str, str]:
    """Return the digests of a checkpoint's parameters, and of a part's ids, subjects, labels and pixels."""
    parameters = {
        name: value.contiguous() for name, value in checkpoint.model_state.items() if not name.endswith(_STATISTICS)
    }
    return {WEIGHTS: tensors_digest(parameters), SAMPLES: _samples_digest(data, part)}


def _samples_digest(data: SplitCache, part: str) -> str:
    table = data.cache.table
    numbers = split_numbers(data.codes, part)
    order = numbers[np.argsort(table.ids[numbers], kind="stable")]
    return samples_digest(table, order, table.labels[order])


def require_same_meaning(out_dir: Path, checkpoint: Checkpoint, data: SplitCache, part: str) -> None:
    """Refuse to write results over those of another network, of other samples or classes, or with another stamp.

    Results of earlier versions have no digests of weights and samples, and are compared in the rest.

    Raises
    ------
    RunError
        Naming all that differs; or if the weights are not finite.
    """
    require_no_other_files(out_dir)
    path = out_dir / "results.json"
    # A link is replaced like every other result, not followed.
    if not path.is_file() or path.is_symlink():
        return
    # Broken weights are other weights too, and that is not what is wrong with them.
    require_finite(checkpoint.model_state, checkpoint.path)
    found = list(_differences(written_results(path), checkpoint, data, part))
    if found:
        raise RunError(
            f"{out_dir} holds results of another meaning, which are not written over: {'; '.join(found)}. Name "
            "another folder by --out, or remove that one first"
        )


def require_no_other_files(out_dir: Path) -> None:
    """Refuse a folder outside runs that holds files with the names of results, and no ``results.json``.

    Raises
    ------
    RunError
        Naming the first such file.
    """
    # In a run's folder they are left by a stopped evaluation.
    if (out_dir / "results.json").exists() or RunFolder(out_dir.parent).is_run:
        return
    for name in sorted(RESULT_NAMES):
        if (out_dir / name).exists():
            raise RunError(
                f"{out_dir / name} is in the way: no results.json beside it says what it is of, so it is not written "
                "over. Remove it, or name another folder by --out"
            )


def written_results(path: Path) -> dict[str, Any]:
    """Read the ``results.json`` that new results would replace.

    Raises
    ------
    RunError
        If it holds no results: those of something else, or damaged ones.
    """
    try:
        return read_results(path)
    except RunError:
        raise RunError(
            f"{path} holds no results of this project, or damaged ones, and is not written over: remove it, or name "
            "another folder by --out"
        ) from None


def _differences(written: Mapping[str, Any], checkpoint: Checkpoint, data: SplitCache, part: str) -> Iterator[str]:
    classes, stamp = tuple(written["classes"]), written["split"]["stamp"]
    if classes != checkpoint.info.judged_classes:
        yield f"classes {', '.join(classes)} instead of {', '.join(checkpoint.info.judged_classes)}"
    if written["split"]["kind"] != str(data.spec):
        yield f"split {written['split']['kind']} instead of {data.spec}"
    # Earlier versions wrote the split's own stamp on training images too.
    stamps = (data.stamp(part), data.leaks.stamp)
    if stamp not in stamps and not (is_disjoint_stamp(stamp) and data.leaks.is_disjoint):
        yield f"stamped {stamp} instead of {stamps[0]}"
    own, identity = judged_identity(checkpoint, data, part), written.get("identity") or {}
    if identity.get(WEIGHTS, own[WEIGHTS]) != own[WEIGHTS]:
        yield f"weights of epoch {written['epoch']} that {checkpoint.path.name} no longer holds"
    if identity.get(SAMPLES, own[SAMPLES]) != own[SAMPLES]:
        yield f"other images, subjects or labels than the part {part!r} has now"
