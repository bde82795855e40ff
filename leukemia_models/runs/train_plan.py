"""Train a plan, in one process or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError, UsageError
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.stores.url import Location, parse_location
from leukemia_models.devices.distributed import Ranks
from leukemia_models.reports.results import Results, result_text
from leukemia_models.runs.begin_runs import PreparedRun, claim_folder, folder_name, write_runs
from leukemia_models.runs.draft_runs import draft_runs, stage_caches
from leukemia_models.runs.open_run import closing_caches, open_run_cache
from leukemia_models.runs.preflight import check_data, require_disk_room, warn_of_sources
from leukemia_models.runs.resume_runs import NO_CHANGES, RunChanges, may_resume, require_as_drafted, resume_folder
from leukemia_models.runs.run_config import (
    MachineOptions,
    ResumeText,
    RunConfig,
    RunOptions,
    TrainingProcess,
    parse_config,
    resume_call,
    training_process,
)
from leukemia_models.runs.run_folder import RunFolder, is_begun, is_kfold
from leukemia_models.runs.run_split import SplitCache, holds_data
from leukemia_models.runs.train_run import train_run
from leukemia_models.training.training_plan import TrainingPlan


def on_all_ranks(
    prepare: Callable[[], list[PreparedRun]], process: TrainingProcess, out: Path | None
) -> list[PreparedRun]:
    """Let the first rank prepare runs; the others open their own copies of the caches for them.

    Parameters
    ----------
    prepare
        Called on the first rank alone.
    process
        This process.
    out
        The folder of the runs, where it was named.

    Raises
    ------
    RunError, UsageError
        On every rank, whichever rank met it: if a node has no cache for a run, or one of other images, or if only
        another node than the first rank's sees the run that is begun in `out`.
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
    """Whether a run is trained and evaluated, as the first rank sees it."""
    return ranks.broadcast_flag(ranks.is_first and run.is_finished)


def _require_folder_of_first(out: Path | None, ranks: Ranks) -> None:
    """Refuse to begin anew where another node has the run: the first rank may be on another node than last time."""
    begun = out is not None and (is_begun(out) or is_kfold(out))
    begun_W = ranks.all_gather_numbers(begun)[:, 0]
    if begun_W.any() and not begun_W[0]:
        raise UsageError(
            f"rank {int(begun_W.argmax())} finds a run in --out {out}, and rank 0 on its node does not: put "
            "--out where all nodes see it, or let rank 0 be on the node that has it"
        )


def _described(run: PreparedRun) -> dict[str, Any]:
    num_samples = len(run.data.codes)
    return {"root": str(run.folder.root), "config": run.config.to_dict(), "num_samples": num_samples}


def _opened(described: list[dict[str, Any]], splits: bytes, options: MachineOptions) -> list[PreparedRun]:
    runs, codes_N = [], np.frombuffer(splits, np.int8)
    for values in described:
        config = parse_config(values["config"])
        codes, codes_N = np.split(codes_N, [values["num_samples"]])
        # None where an earlier version began the run: then the first rank alone has found it out.
        seen_before = config.seen_before or NOTHING_SEEN_BEFORE
        data = SplitCache(_own_cache(config, options), parse_split(config.split), codes, seen_before)
        runs.append(PreparedRun(RunFolder(Path(values["root"])), config, data))
    return runs


def _own_cache(config: RunConfig, options: MachineOptions) -> Cache:
    """Open the copy of a run's cache that this node has: where it says so, else where the first rank has its own."""
    location = parse_location(config.cache_dir)
    if options.cache is None and isinstance(location, Path) and not (location / MANIFEST_NAME).is_file():
        raise RunError(
            f"there is no cache at {config.cache_dir} on this node: copy it there, or say by --cache or $LTRAIN_CACHE "
            "where this node has its own"
        )
    cache = open_run_cache(config, options.cache, options.copies)
    if not holds_data(cache, config.data_digest):
        raise RunError(
            f"{cache.location} holds other images than the cache of rank 0 ({config.cache_dir}): give every node a "
            "copy of the same cache"
        )
    return cache


ALONE: Mapping[str, str] = MappingProxyType({})
"""Environment of a process that trains alone."""
Prepare = Callable[[TrainingProcess, ExitStack], list[PreparedRun]]
"""Begins or resumes runs; whatever they hold until the end of the training goes into the stack."""


@dataclass(frozen=True)
class TrainedRuns:
    """What a training came to.

    Attributes
    ----------
    root
        The folder of the plan, or of its only run.
    folders
        One a stage, in order.
    results
        By part, of the last stage; empty on other ranks than the first.
    is_first
        Whether this process is the one that reports.
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
    machine: MachineOptions = MachineOptions(),  # noqa: B008 - frozen
    out: Path | None = None,
    resume_if_begun: bool = False,
    accumulate: int | None = None,
    environment: Mapping[str, str] = ALONE,
    resume_text: ResumeText = resume_call,
    console: Console = NULL_CONSOLE,
) -> TrainedRuns:
    """Begin the runs of a plan, train and evaluate them.

    Parameters
    ----------
    plan : TrainingPlan
        What to train: from :func:`~leukemia_models.training.plan_file.load_plan` or
        :func:`~leukemia_models.training.training_plan.single_stage_plan`.
    cache : Path or Url
        A cache, or a folder of caches of which one fits each stage.
    options : RunOptions
        How the data are used.
    machine : MachineOptions
        What is taken of the machine.
    out : Path, optional
        The folder to write, empty or not there; None makes one below ``runs``.
    resume_if_begun : bool
        Resume what is in `out` if this call, or the same one before, has begun it; torchrun with restarts implies it.
    accumulate : int, optional
        Micro-batches of each process, for a run that is resumed; None keeps what it has.
    environment : mapping of str to str
        torchrun's variables, where several processes train together.
    resume_text : callable
        For messages: names the call that resumes what is in a folder.
    console : Console
        Hears how the training goes.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        If something is wrong, before anything is computed; or if something stops the training.
    """
    resumes = may_resume(environment, out, resume_if_begun=resume_if_begun)

    def prepare(process: TrainingProcess, held: ExitStack) -> list[PreparedRun]:
        for text in plan.warnings():
            process.console.warn(text)
        caches = stage_caches(plan, cache, options.positive, machine.copies, process.console)
        drafts = draft_runs(plan, caches, options, process)
        if resumes and out is not None and is_begun(out):
            runs = resume_folder(out, process, held, RunChanges(accumulate=accumulate))
            require_as_drafted(runs, drafts, out)
            return runs
        return write_runs(plan, drafts, claim_folder(out, folder_name(plan, drafts[0].config), held, clear=resumes))

    return _train(prepare, out, machine, environment, resume_text, console)


def resume(
    out: Path,
    *,
    changes: RunChanges = NO_CHANGES,
    machine: MachineOptions = MachineOptions(),  # noqa: B008 - frozen
    environment: Mapping[str, str] = ALONE,
    resume_text: ResumeText = resume_call,
    console: Console = NULL_CONSOLE,
) -> TrainedRuns:
    """Go on with a run, or the stages of a plan, where it stopped; the weights become those of a run without a stop.

    Parameters
    ----------
    out : Path
        The folder of the run or of the plan.
    changes : RunChanges
        Another length, other micro-batches.
    machine, environment, resume_text, console
        As in :func:`train_plan`.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        If there is no such run, it cannot be resumed, or something stops the training.
    """
    return _train(
        lambda process, held: resume_folder(out, process, held, changes),
        out,
        machine,
        environment,
        resume_text,
        console,
    )


def _train(
    prepare: Prepare,
    out: Path | None,
    machine: MachineOptions,
    environment: Mapping[str, str],
    resume_text: ResumeText,
    console: Console,
) -> TrainedRuns:
    with (
        training_process(machine, environment, console, resume_text) as process,
        prepared_runs(prepare, process, out) as runs,
    ):
        root = out if out is not None else runs[0].plan_dir
        check_data(runs, root, process)
        warn_of_sources(runs, process.console)
        results = train_stages(runs, root, process)
    return TrainedRuns(root, tuple(run.folder for run in runs), results, process.ranks.is_first)


@contextmanager
def prepared_runs(prepare: Prepare, process: TrainingProcess, out: Path | None) -> Iterator[list[PreparedRun]]:
    """Hold runs for the block that one rank has begun or resumed: their folder's lock, and their caches.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        On every rank, if they cannot be begun or resumed, or there is no room for their checkpoints.
    """

    def begin() -> list[PreparedRun]:
        runs = prepare(process, held)
        require_disk_room([run for run in runs if not run.is_finished], process.console)
        return runs

    with ExitStack() as held:
        runs = on_all_ranks(begin, process, out)
        with closing_caches(runs):
            yield runs


def train_stages(runs: Sequence[PreparedRun], root: Path, process: TrainingProcess) -> dict[str, Results]:
    """Train and evaluate the stages that are not finished, one after the other.

    Parameters
    ----------
    runs
        One a stage. The last one is always asked: a finished run is not trained again, and its results are returned.
    root
        The folder of all runs of this training.
    process
        This process.

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
