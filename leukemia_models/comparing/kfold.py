"""Cross-validation: train a new network for every fold, evaluate it on the held-out subjects, pool the predictions.

A cross-validation is a folder of runs, or of plans, one per fold; ``kfold.json`` lists the folds and is written last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Unpack

from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import parse_json
from leukemia_data.files.lock import lock_run
from leukemia_data.splitting.splits import fold_splits
from leukemia_data.stores.url import Location
from leukemia_models.comparing.fold_evaluation import FOLD_NAME, HELD_OUT_PART, CrossValidation
from leukemia_models.comparing.fold_report import pool_folds
from leukemia_models.reports.results import result_text
from leukemia_models.runs.begin_runs import PreparedRun, claim_folder, clear_leftovers, folder_name, write_runs
from leukemia_models.runs.draft_runs import RunDraft, draft_runs, stage_caches
from leukemia_models.runs.resume_runs import NO_CHANGES, RunChanges, may_resume, require_as_drafted, resume_runs
from leukemia_models.runs.run_config import ALONE, ProcessArguments, RunOptions, TrainingProcess
from leukemia_models.runs.run_folder import KFOLD_FILE_NAME, is_kfold
from leukemia_models.runs.train_plan import Prepare, is_finished, prepared_runs, train_stages
from leukemia_models.runs.training_faults import check_data, warn_of_sources
from leukemia_models.training.training_plan import TrainingPlan

KFOLD_FORMAT = "leukemia-cells k-fold"
KFOLD_FORMAT_VERSION = 1
_DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class TrainedFolds:
    """A trained cross-validation: its folder, and its pooled results (None on other ranks than the first)."""

    root: Path
    pooled: CrossValidation | None


def cross_validate(
    plan: TrainingPlan,
    cache: Location,
    *,
    folds: str | int | None = None,
    valid_share: float = 0.0,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    out: Path | None = None,
    resume_if_begun: bool = False,
    accumulate: int | None = None,
    **process_arguments: Unpack[ProcessArguments],
) -> TrainedFolds:
    """Train a plan once per fold, evaluate each network on the held-out subjects, and pool the predictions.

    Nothing is chosen by held-out images: the last epoch is evaluated, or with `valid_share` the best epoch on other
    subjects.

    Parameters
    ----------
    plan, cache, out, resume_if_begun, accumulate, process_arguments
        As for :func:`~leukemia_models.runs.train_plan.train_plan`, whose errors it raises.
    folds : str or int, optional
        Number of folds by whole subjects; ``official``: the folds of the source; ``loso``: one fold per subject.
        None takes the plan's number, else 5.
    valid_share : float
        Fraction of each fold's training images, as whole subjects, for validation; 0 for none.
    options : RunOptions
        Its split is ignored.
    """
    kind = str(folds if folds is not None else plan.num_folds or _DEFAULT_FOLDS)
    resumes = may_resume(process_arguments.get("environment", ALONE), out, resume_if_begun=resume_if_begun)

    def prepare(process: TrainingProcess, held: ExitStack) -> list[PreparedRun]:
        for text in plan.warnings():
            process.console.warn(text)
        folds = _draft_folds(plan, cache, kind, valid_share, options, process)
        if resumes and out is not None and is_kfold(out):
            runs = _resumed(out, process, held, RunChanges(accumulate=accumulate))
            require_as_drafted(runs, [draft for drafts in folds for draft in drafts], out)
            return runs
        root = claim_folder(out, folder_name(plan, folds[0][0], f"kfold-{kind}"), held, clear=resumes)
        return _write_folds(plan, kind, options, folds, root)

    return _train_folds(prepare, out, **process_arguments)


def resume_cross_validation(
    out: Path, *, changes: RunChanges = NO_CHANGES, **process_arguments: Unpack[ProcessArguments]
) -> TrainedFolds:
    """Resume a stopped cross-validation; finished folds are kept.

    Parameters
    ----------
    out, process_arguments
        As for :func:`~leukemia_models.runs.train_plan.resume`, whose errors it raises.
    changes : RunChanges
        Of every unfinished fold; the folds keep their length.
    """
    return _train_folds(lambda process, held: _resumed(out, process, held, changes), out, **process_arguments)


def _train_folds(prepare: Prepare, out: Path | None, **process_arguments: Unpack[ProcessArguments]) -> TrainedFolds:
    with prepared_runs(prepare, out, **process_arguments) as (runs, process):
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


def _draft_folds(
    plan: TrainingPlan, cache: Location, kind: str, valid_share: float, options: RunOptions, process: TrainingProcess
) -> list[list[RunDraft]]:
    """Check every fold and stage before anything is written."""
    # Opened once: an index takes a hundred bytes per sample.
    caches = stage_caches(plan, cache, options.positive, process.options.copies, process.console)
    manifest, table = caches[0].manifest, caches[0].table
    specs = fold_splits(kind, table, options.split_seed, manifest.classes, manifest.subjects, valid_share=valid_share)
    return [draft_runs(plan, caches, replace(options, split=spec), process, is_fold=True) for spec in specs]


def _write_folds(
    plan: TrainingPlan, kind: str, options: RunOptions, folds: Sequence[list[RunDraft]], root: Path
) -> list[PreparedRun]:
    """Write the settings of all folds; the list of folds is written last and completes the folder."""
    width = len(str(len(folds)))
    drafts_of = {f"fold-{number:0{width}d}": drafts for number, drafts in enumerate(folds, 1)}
    runs = [run for name, drafts in drafts_of.items() for run in write_runs(plan, drafts, root / name)]
    content = {
        "format": KFOLD_FORMAT,
        "format_version": KFOLD_FORMAT_VERSION,
        "kind": kind,
        "seed": options.seed,
        "split_seed": options.split_seed,
        "folds": {name: drafts[0].config.split for name, drafts in drafts_of.items()},
    }
    write_text(root / KFOLD_FILE_NAME, json.dumps(content, indent=2) + "\n")
    return runs


def _resumed(out: Path, process: TrainingProcess, held: ExitStack, changes: RunChanges) -> list[PreparedRun]:
    if not out.exists():
        raise UsageError(f"{out} does not exist: name the folder of a cross-validation")
    names = load_fold_names(out)
    held.enter_context(lock_run(out))
    runs = [run for name in names for run in resume_runs(out / name, process, changes)]
    clear_leftovers(out)
    return runs


def load_fold_names(root: Path) -> list[str]:
    """Return the names of the folds' folders, in order; raises a RunError if ``kfold.json`` is missing or damaged."""
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
    wrong = [name for name in names if not FOLD_NAME.fullmatch(name)]
    if wrong or not names:
        what = f"{wrong[0]!r} is no name of a fold, such as fold-1" if wrong else "it names no fold"
        raise RunError(f"{path} is damaged: {what}; start a new cross-validation")
    return names
