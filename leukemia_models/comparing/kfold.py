"""Cross-validation: a fresh network for every fold, evaluated on what was held out, and all predictions pooled.

A cross-validation is a folder of runs, or of plans, one a fold; ``kfold.json`` lists the folds and comes last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import parse_json
from leukemia_data.files.lock import lock_run
from leukemia_data.splitting.split_spec import SplitSpec
from leukemia_data.splitting.splits import fold_splits
from leukemia_data.stores.url import Location
from leukemia_models.comparing.fold_evaluation import HELD_OUT_PART, CrossValidation, is_fold_name
from leukemia_models.comparing.fold_report import pool_folds
from leukemia_models.reports.results import result_text
from leukemia_models.runs.begin_runs import PreparedRun, claim_folder, clear_leftovers, seeds_in_name, write_runs
from leukemia_models.runs.draft_runs import RunDraft, draft_runs, stage_caches
from leukemia_models.runs.preflight import check_data, warn_of_sources
from leukemia_models.runs.resume_runs import NO_CHANGES, RunChanges, may_resume, require_as_drafted, resume_runs
from leukemia_models.runs.run_config import (
    MachineOptions,
    ResumeText,
    RunOptions,
    TrainingProcess,
    resume_call,
    training_process,
)
from leukemia_models.runs.run_folder import KFOLD_FILE_NAME, is_kfold
from leukemia_models.runs.train_plan import ALONE, Prepare, is_finished, prepared_runs, train_stages
from leukemia_models.training.training_plan import TrainingPlan

KFOLD_FORMAT = "leukemia-cells k-fold"
KFOLD_FORMAT_VERSION = 1
_DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class TrainedFolds:
    """What a cross-validation came to.

    Attributes
    ----------
    root
        Its folder.
    pooled
        All folds, pooled; None on other ranks than the first.
    """

    root: Path
    pooled: CrossValidation | None


def cross_validate(
    plan: TrainingPlan,
    cache: Location,
    *,
    folds: str | int | None = None,
    valid_share: float = 0.0,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    machine: MachineOptions = MachineOptions(),  # noqa: B008 - frozen
    out: Path | None = None,
    resume_if_begun: bool = False,
    accumulate: int | None = None,
    environment: Mapping[str, str] = ALONE,
    resume_text: ResumeText = resume_call,
    console: Console = NULL_CONSOLE,
) -> TrainedFolds:
    """Train a plan anew for every fold, evaluate each network on the subjects held out, and pool the predictions.

    Nothing is chosen by the held-out images: the last epoch is evaluated, or with `valid_share` the best one on
    subjects set apart for that.

    Parameters
    ----------
    plan, cache, machine, out, resume_if_begun, accumulate, environment, resume_text, console
        As in :func:`~leukemia_models.runs.train_plan.train_plan`.
    folds : str or int, optional
        A number: whole subjects in so many parts; ``official``: the source's own folds; ``loso``: each subject once.
        None takes the plan's number, else 5.
    valid_share : float
        Share of each fold's training images, as whole subjects, that validates; 0 for none.
    options : RunOptions
        How the data are used; the split is that of the folds.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        If something is wrong, before anything is computed; or if something stops the training.
    """
    kind = str(folds if folds is not None else plan.num_folds or _DEFAULT_FOLDS)
    resumes = may_resume(environment, out, resume_if_begun=resume_if_begun)

    def prepare(process: TrainingProcess, held: ExitStack) -> list[PreparedRun]:
        for text in plan.warnings():
            process.console.warn(text)
        drafted = _draft_folds(plan, cache, kind, valid_share, options, process)
        if resumes and out is not None and is_kfold(out):
            runs = _resumed(out, process, held, RunChanges(accumulate=accumulate))
            require_as_drafted(runs, [draft for drafts in drafted.drafts for draft in drafts], out)
            return runs
        root = claim_folder(out, drafted.folder_name(plan, options), held, clear=resumes)
        return _write_folds(plan, options, drafted, root)

    return _train_folds(prepare, out, machine, environment, resume_text, console)


def resume_cross_validation(
    out: Path,
    *,
    accumulate: int | None = None,
    machine: MachineOptions = MachineOptions(),  # noqa: B008 - frozen
    environment: Mapping[str, str] = ALONE,
    resume_text: ResumeText = resume_call,
    console: Console = NULL_CONSOLE,
) -> TrainedFolds:
    """Go on with a cross-validation where it stopped: folds that are finished stay.

    Parameters
    ----------
    out, machine, environment, resume_text, console
        As in :func:`~leukemia_models.runs.train_plan.resume`.
    accumulate : int, optional
        Micro-batches of each process; None keeps what the folds have.

    Raises
    ------
    UsageError, CacheError, RunError, StorageError
        If there is no cross-validation, it cannot be resumed, or something stops the training.
    """
    changes = RunChanges(accumulate=accumulate)
    return _train_folds(
        lambda process, held: _resumed(out, process, held, changes), out, machine, environment, resume_text, console
    )


def _train_folds(
    prepare: Prepare,
    out: Path | None,
    machine: MachineOptions,
    environment: Mapping[str, str],
    resume_text: ResumeText,
    console: Console,
) -> TrainedFolds:
    with (
        training_process(machine, environment, console, resume_text) as process,
        prepared_runs(prepare, process, out) as runs,
    ):
        root = runs[0].plan_dir.parent
        unfinished = [run for run in runs if not is_finished(run, process.ranks)]
        check_data(unfinished, root, process)
        warn_of_sources(unfinished, process.console)
        folds = [list(fold) for _, fold in groupby(runs, key=lambda run: run.plan_dir)]
        for number, fold in enumerate(folds, 1):
            if any(run in unfinished for run in fold):
                _train_fold(fold, f"fold {number}/{len(folds)}", root, process)
        pooled = pool_folds([fold[0].plan_dir for fold in folds], root) if process.ranks.is_first else None
    return TrainedFolds(root, pooled)


def _train_fold(fold: Sequence[PreparedRun], title: str, root: Path, process: TrainingProcess) -> None:
    process.console.note(f"{title}: {fold[0].config.split}")
    results = train_stages(fold, root, process)
    if results:
        process.console.note(result_text(title, results[HELD_OUT_PART]))


@dataclass(frozen=True)
class _DraftedFolds:
    """A cross-validation that could begin."""

    kind: str
    size_px: int
    specs: Sequence[SplitSpec]
    drafts: Sequence[list[RunDraft]]

    def folder_name(self, plan: TrainingPlan, options: RunOptions) -> str:
        what = plan.name if plan.is_staged else f"{plan.model_name}-{self.size_px}px"
        return f"{what}-kfold-{self.kind}-{seeds_in_name(options.seed, options.split_seed)}"


def _draft_folds(
    plan: TrainingPlan, cache: Location, kind: str, valid_share: float, options: RunOptions, process: TrainingProcess
) -> _DraftedFolds:
    """Check every fold and stage before anything is written."""
    # Opened once: an index holds a hundred bytes of every sample.
    caches = stage_caches(plan, cache, options.positive, process.options.copies, process.console)
    first = caches[0]
    manifest = first.manifest
    specs = fold_splits(
        kind, first.table, options.split_seed, manifest.classes, manifest.subjects, valid_share=valid_share
    )
    drafts = [draft_runs(plan, caches, replace(options, split=spec), process, is_fold=True) for spec in specs]
    return _DraftedFolds(kind, first.size_px, specs, drafts)


def _write_folds(plan: TrainingPlan, options: RunOptions, folds: _DraftedFolds, root: Path) -> list[PreparedRun]:
    """Write the settings of all folds; the list of folds comes last and completes the folder."""
    width = len(str(len(folds.specs)))
    names = [f"fold-{number:0{width}d}" for number in range(1, len(folds.specs) + 1)]
    runs = [
        run for name, drafts in zip(names, folds.drafts, strict=True) for run in write_runs(plan, drafts, root / name)
    ]
    content = {
        "format": KFOLD_FORMAT,
        "format_version": KFOLD_FORMAT_VERSION,
        "kind": folds.kind,
        "seed": options.seed,
        "split_seed": options.split_seed,
        "folds": dict(zip(names, map(str, folds.specs), strict=True)),
    }
    write_text(root / KFOLD_FILE_NAME, json.dumps(content, indent=2) + "\n")
    return runs


def _resumed(
    out: Path, process: TrainingProcess, held: ExitStack, changes: RunChanges = NO_CHANGES
) -> list[PreparedRun]:
    if not out.exists():
        raise UsageError(f"{out} does not exist: name the folder of a cross-validation")
    names = load_fold_names(out)
    held.enter_context(lock_run(out))
    runs = [run for name in names for run in resume_runs(out / name, process, changes)]
    clear_leftovers(out)
    return runs


def load_fold_names(root: Path) -> list[str]:
    """Return the names of a cross-validation's folders, in order.

    Raises
    ------
    RunError
        If there is none, or its list of folds cannot be read.
    """
    path = root / KFOLD_FILE_NAME
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format"] != KFOLD_FORMAT or content["format_version"] != KFOLD_FORMAT_VERSION:
            raise RunError(f"{path}: expected {KFOLD_FORMAT!r} version {KFOLD_FORMAT_VERSION}")
        names = list(content["folds"].keys())
    except FileNotFoundError:
        raise RunError(f"{root} holds no cross-validation: there is no {path.name} in it") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} cannot be read: {error!r}") from error
    wrong = [name for name in names if not is_fold_name(name)]
    if wrong or not names:
        what = f"{wrong[0]!r} is no name of a fold, such as fold-1" if wrong else "it names no fold"
        raise RunError(f"{path} is damaged: {what}; start a new cross-validation")
    return names
