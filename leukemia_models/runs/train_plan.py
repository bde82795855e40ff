"""Train a training plan, in one process or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.errors import RunError, UsageError
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.stores.url import Location, parse_location
from leukemia_models.devices.distributed import Ranks
from leukemia_models.reports.results import Results, result_text
from leukemia_models.runs.begin_runs import PreparedRun, claim_folder, folder_name, write_runs
from leukemia_models.runs.draft_runs import draft_runs, stage_caches
from leukemia_models.runs.open_run import open_run_cache
from leukemia_models.runs.resume_runs import NO_CHANGES, RunChanges, may_resume, require_as_drafted, resume_folder
from leukemia_models.runs.run_config import (
    ALONE,
    MachineOptions,
    ProcessArguments,
    RunConfig,
    RunOptions,
    TrainingProcess,
    parse_config,
    training_process,
)
from leukemia_models.runs.run_folder import RunFolder, is_begun, is_kfold
from leukemia_models.runs.run_split import SplitCache, holds_data
from leukemia_models.runs.train_run import train_run
from leukemia_models.runs.training_faults import check_data, require_disk_room, warn_of_sources
from leukemia_models.training.training_plan import TrainingPlan


def on_all_ranks(
    prepare: Callable[[], list[PreparedRun]], process: TrainingProcess, out: Path | None
) -> list[PreparedRun]:
    """Return the runs that `prepare` returns on the first rank; other ranks open their own copies of the caches.

    Raises
    ------
    RunError, UsageError
        On every rank, if a node has no cache for a run or one with other images, or if the run begun in `out` is
        visible on another node but not on that of the first rank.
    """
    ranks = process.ranks
    _require_folder_of_first(out, ranks)
    runs: list[PreparedRun] = []
    ranks.run_on_all(lambda: runs.extend(prepare()) if ranks.is_first else None)
    if ranks.world_size == 1:
        return runs
    described = ranks.broadcast_text(json.dumps([_described(run) for run in runs]))
    splits = ranks.broadcast_bytes(lambda: b"".join(run.data.codes.tobytes() for run in runs))
    return ranks.run_on_all(lambda: runs or _opened(json.loads(described), splits, process.options))


def is_finished(run: PreparedRun, ranks: Ranks) -> bool:
    """Whether a run is trained and evaluated, according to the first rank."""
    return ranks.broadcast_flag(ranks.is_first and run.is_finished)


def _require_folder_of_first(out: Path | None, ranks: Ranks) -> None:
    """Refuse to begin a run that another node has begun: the first rank may have moved to another node."""
    begun = out is not None and (is_begun(out) or is_kfold(out))
    begun_W = ranks.all_gather_numbers(begun)[:, 0]
    if begun_W.any() and not begun_W[0]:
        raise UsageError(
            f"rank {int(begun_W.argmax())} finds a run in --out {out}, and rank 0 on its node does not: put "
            "--out where all nodes see it, or run rank 0 on the node that has it"
        )


def _described(run: PreparedRun) -> dict[str, Any]:
    num_samples = len(run.data.codes)
    return {"root": str(run.folder.root), "config": run.config.to_dict(), "num_samples": num_samples}


def _opened(described: list[dict[str, Any]], splits: bytes, options: MachineOptions) -> list[PreparedRun]:
    runs, codes_N = [], np.frombuffer(splits, np.int8)
    for values in described:
        config = parse_config(values["config"])
        codes, codes_N = np.split(codes_N, [values["num_samples"]])
        # None in runs of earlier versions; the first rank has computed it.
        seen_before = config.seen_before or NOTHING_SEEN_BEFORE
        data = SplitCache(_own_cache(config, options), parse_split(config.split), codes, seen_before)
        runs.append(PreparedRun(RunFolder(Path(values["root"])), config, data))
    return runs


def _own_cache(config: RunConfig, options: MachineOptions) -> Cache:
    """Open this node's copy of a run's cache, at ``options.cache`` or at the same place as on the first rank."""
    location = parse_location(config.cache_dir)
    if options.cache is None and isinstance(location, Path) and not (location / MANIFEST_NAME).is_file():
        raise RunError(
            f"there is no cache at {config.cache_dir} on this node: copy it there, or name this node's copy with "
            "--cache or $LTRAIN_CACHE"
        )
    cache = open_run_cache(config, options.cache, options.copies)
    if not holds_data(cache, config.data_digest):
        raise RunError(
            f"{cache.location} holds other images than the cache of rank 0 ({config.cache_dir}): give every node a "
            "copy of the same cache"
        )
    return cache


Prepare = Callable[[TrainingProcess, ExitStack], list[PreparedRun]]
"""Begins or resumes runs; locks that are held during the training go into the stack."""


@dataclass(frozen=True)
class TrainedRuns:
    """Runs of a plan, trained and evaluated.

    Attributes
    ----------
    root
        The folder of the plan, or of its only run.
    folders
        One per stage, in order.
    results
        By part, of the last stage; empty on other ranks than the first.
    is_first
        Whether this process is the first rank, which reports.
    """

    root: Path
    folders: tuple[RunFolder, ...]
    results: Mapping[str, Results]
    is_first: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the last run's folder and its results as JSON can hold them."""
        results = {part: result.to_dict() for part, result in self.results.items()}
        return {"run": str(self.folders[-1].root), "results": results}


def train_plan(
    plan: TrainingPlan,
    cache: Location,
    *,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    out: Path | None = None,
    resume_if_begun: bool = False,
    accumulate: int | None = None,
    **process_arguments: Unpack[ProcessArguments],
) -> TrainedRuns:
    """Begin the runs of a plan, train and evaluate them.

    Parameters
    ----------
    plan : TrainingPlan
        From :func:`~leukemia_models.training.plan_file.load_plan` or
        :func:`~leukemia_models.training.training_plan.single_stage_plan`.
    cache : Path or Url
        A cache, or a folder of caches of which one fits each stage.
    out : Path, optional
        Folder of the runs, empty or missing; None makes one below ``runs``.
    resume_if_begun : bool
        Resume the runs in `out` if the same call has begun them; torchrun with restarts implies it.
    accumulate : int, optional
        Micro-batches of each process if runs are resumed; None keeps what they have.
    process_arguments
        As for :func:`~leukemia_models.runs.run_config.training_process`.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        If the runs cannot begin, before anything is computed; or if the training stops.
    """
    resumes = may_resume(process_arguments.get("environment", ALONE), out, resume_if_begun=resume_if_begun)

    def prepare(process: TrainingProcess, held: ExitStack) -> list[PreparedRun]:
        for text in plan.warnings():
            process.console.warn(text)
        caches = stage_caches(plan, cache, options.positive, process.options.copies, process.console)
        drafts = draft_runs(plan, caches, options, process)
        if resumes and out is not None and is_begun(out):
            runs = resume_folder(out, process, held, RunChanges(accumulate=accumulate))
            require_as_drafted(runs, drafts, out)
            return runs
        name = folder_name(plan, drafts[0], options.split_spec.file_name)
        return write_runs(plan, drafts, claim_folder(out, name, held, clear=resumes))

    return _train(prepare, out, **process_arguments)


def resume(
    out: Path, *, changes: RunChanges = NO_CHANGES, **process_arguments: Unpack[ProcessArguments]
) -> TrainedRuns:
    """Resume a stopped run, or the stages of a plan; the weights become those of a run without a stop.

    Parameters
    ----------
    out : Path
        Folder of the run or of the plan.
    process_arguments
        As for :func:`train_plan`.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        If there is no such run, it cannot be resumed, or the training stops.
    """
    return _train(lambda process, held: resume_folder(out, process, held, changes), out, **process_arguments)


def _train(prepare: Prepare, out: Path | None, **process_arguments: Unpack[ProcessArguments]) -> TrainedRuns:
    with prepared_runs(prepare, out, **process_arguments) as (runs, process):
        root = out if out is not None else runs[0].plan_dir
        check_data(runs, root, process)
        warn_of_sources(runs, process.console)
        results = train_stages(runs, root, process)
    return TrainedRuns(root, tuple(run.folder for run in runs), results, process.ranks.is_first)


@contextmanager
def prepared_runs(
    prepare: Prepare, out: Path | None, **process_arguments: Unpack[ProcessArguments]
) -> Iterator[tuple[list[PreparedRun], TrainingProcess]]:
    """Begin or resume runs, and hold the lock of their folder and their caches for the block.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        On every rank, if they cannot be begun or resumed, or the disk is too full for their checkpoints.
    """

    def begin() -> list[PreparedRun]:
        runs = prepare(process, held)
        require_disk_room([run for run in runs if not run.is_finished], process.console)
        return runs

    with training_process(**process_arguments) as process, ExitStack() as held:
        runs = on_all_ranks(begin, process, out)
        for run in runs:
            held.enter_context(run.data.cache)
        yield runs, process


def train_stages(runs: Sequence[PreparedRun], root: Path, process: TrainingProcess) -> dict[str, Results]:
    """Train and evaluate the stages that are not finished, in order.

    Parameters
    ----------
    runs
        One per stage. The last one is not skipped: if it is finished, its results are computed again.
    root
        The folder of all runs of this training.

    Returns
    -------
    dict of str to Results
        By part, of the last stage; empty on other ranks than the first.
    """
    results: dict[str, Results] = {}
    for number, run in enumerate(runs, 1):
        is_last = number == len(runs)
        if not is_last and is_finished(run, process.ranks):
            continue
        if len(runs) > 1:
            process.console.note(f"stage {number}/{len(runs)}: {run.config.stage}")
        results = train_run(run, root, process)
        if not is_last:
            for part, result in results.items():
                process.console.note(result_text(part, result))
    return results
