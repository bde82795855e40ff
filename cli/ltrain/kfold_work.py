"""The part of ``ltrain kfold`` that needs torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch

from cli.ltrain.data_check import check_data, tell_of_sources
from cli.ltrain.drafts import Machine, RunDraft, draft_runs, stage_caches
from cli.ltrain.prepare import (
    Run,
    clear_leftovers,
    free_folder,
    require_empty,
    require_free_options,
    seeds_in_name,
    take_up_runs,
    write_runs,
)
from cli.ltrain.requested_plan import requested_plan
from cli.ltrain.restart import as_resumed, clear_beginning, may_go_on, require_as_drafted
from cli.ltrain.runs_on_ranks import is_finished, on_all_ranks
from cli.ltrain.train import train_stages
from cli.ltrain.train_request import TrainRequest
from cli.output import print_json, print_note, print_text
from leukemia_data.errors import RunError, UsageError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import parse_json
from leukemia_data.splitting.split_spec import VALID_SHARE, SplitSpec
from leukemia_data.splitting.splits import fold_splits
from leukemia_models.comparing.cross_validation import HELD_OUT_PART, is_fold_name
from leukemia_models.comparing.cross_validation_report import pool_folds
from leukemia_models.devices.distributed import Ranks, joined_ranks, rank_device
from leukemia_models.devices.precision import choose_device
from leukemia_models.reports.result_text import result_text
from leukemia_models.runs.open_run import closing_caches
from leukemia_models.runs.run_folder import KFOLD_FILE_NAME, is_kfold
from leukemia_models.training.training_plan import TrainingPlan

KFOLD_FORMAT = "leukemia-cells k-fold"
KFOLD_FORMAT_VERSION = 1
_DEFAULT_FOLDS = "5"


def cross_validate(request: TrainRequest, *, inner_valid: float) -> None:
    """Prepare or take up all folds, train and judge each, and pool what they say of the images held out."""
    device = rank_device(choose_device(request.device), os.environ)
    goes_on = may_go_on(request, os.environ)
    with joined_ranks(os.environ, device, wait_minutes=request.wait_minutes) as ranks:
        machine = Machine(device, ranks.processes_here, ranks.world_size)
        runs = on_all_ranks(lambda: _prepare(request, machine, inner_valid, goes_on=goes_on), request, ranks)
        root = runs[0].plan_dir.parent
        # Whoever interrupts a fold must hear of the folder of all.
        request = replace(request, out=root)
        folds = [list(fold) for _, fold in groupby(runs, key=lambda run: run.plan_dir)]
        with closing_caches(runs):
            unfinished = [run for run in runs if not is_finished(run, ranks)]
            check_data(unfinished, request, os.environ, ranks)
            tell_of_sources(unfinished, ranks)
            for number, fold in enumerate(folds, 1):
                _train_fold(fold, f"fold {number}/{len(folds)}", request, device, ranks)
    if ranks.is_first:
        _report(root, [fold[0].plan_dir for fold in folds], request.as_json)


def inner_share(inner_valid: bool, share: float | None) -> float:
    """The share of each fold's training images that validates; 0 for none.

    Raises
    ------
    UsageError
        If both options are given.
    """
    if inner_valid and share is not None:
        raise UsageError("--valid-from-train names the share that --inner-valid takes: give one of them")
    return VALID_SHARE if inner_valid else share or 0.0


def _train_fold(fold: list[Run], title: str, request: TrainRequest, device: torch.device, ranks: Ranks) -> None:
    if all(is_finished(run, ranks) for run in fold):
        return
    if ranks.is_first:
        print_note(f"{title}: {fold[0].config.split}")
    results = train_stages(fold, request, device, ranks)
    if ranks.is_first:
        print_note(result_text(title, results[HELD_OUT_PART]))


def _prepare(request: TrainRequest, machine: Machine, inner_valid: float, *, goes_on: bool) -> list[Run]:
    if "extend" in request.given:
        raise UsageError("--extend: the folds of a cross-validation keep their length; start a new one")
    if request.resume:
        return _take_up(request, machine)
    plan = requested_plan(request)
    folds = _draft_folds(plan, request, machine, inner_valid)
    if not goes_on or request.out is None:
        return _begin(plan, request, folds)
    if not is_kfold(request.out):
        clear_beginning(request.out)
        return _begin(plan, request, folds)
    runs = _take_up(as_resumed(request), machine)
    require_as_drafted(runs, [draft for drafts in folds.drafts for draft in drafts], request.out)
    return runs


@dataclass(frozen=True)
class _Folds:
    """A cross-validation that could begin."""

    kind: str
    size_px: int
    specs: Sequence[SplitSpec]
    drafts: Sequence[list[RunDraft]]


def _draft_folds(plan: TrainingPlan, request: TrainRequest, machine: Machine, inner_valid: float) -> _Folds:
    """Check every fold and stage before anything is written."""
    kind = request.folds or (str(plan.num_folds) if plan.num_folds is not None else _DEFAULT_FOLDS)
    # Opened once: an index holds a hundred bytes of every sample.
    caches = stage_caches(plan, request)
    cache = caches[0]
    manifest = cache.manifest
    specs = fold_splits(
        kind, cache.table, request.split_seed, manifest.classes, manifest.subjects, valid_share=inner_valid
    )
    drafts = [draft_runs(plan, replace(request, split=str(spec)), machine, caches) for spec in specs]
    return _Folds(kind, cache.size_px, specs, drafts)


def _begin(plan: TrainingPlan, request: TrainRequest, folds: _Folds) -> list[Run]:
    """Write the settings of all folds; the list of folds comes last and completes the folder."""
    what = plan.name if plan.is_staged else f"{plan.model_name}-{folds.size_px}px"
    root = (
        request.out
        if request.out is not None
        else free_folder(f"{what}-kfold-{folds.kind}-{seeds_in_name(request.seed, request.split_seed)}")
    )
    require_empty(root)
    width = len(str(len(folds.specs)))
    names = [f"fold-{number:0{width}d}" for number in range(1, len(folds.specs) + 1)]
    runs = [
        run
        for name, drafts in zip(names, folds.drafts, strict=True)
        for run in write_runs(plan, request, drafts, root / name)
    ]
    _save(root, folds.kind, request, dict(zip(names, map(str, folds.specs), strict=True)))
    return runs


def _save(root: Path, kind: str, request: TrainRequest, split_of_fold: dict[str, str]) -> None:
    content = {
        "format": KFOLD_FORMAT,
        "format_version": KFOLD_FORMAT_VERSION,
        "kind": kind,
        "seed": request.seed,
        "split_seed": request.split_seed,
        "folds": split_of_fold,
    }
    write_text(root / KFOLD_FILE_NAME, json.dumps(content, indent=2) + "\n")


def _take_up(request: TrainRequest, machine: Machine) -> list[Run]:
    if request.out is None:
        raise UsageError("--resume needs --out: the folder of the cross-validation to go on with")
    if not request.out.exists():
        raise UsageError(f"{request.out} does not exist: name the folder of a cross-validation")
    require_free_options(request)
    if "epochs" in request.given:
        raise UsageError("--epochs: the folds of a cross-validation keep their length; start a new one")
    names = load_fold_names(request.out)
    runs = [run for name in names for run in take_up_runs(replace(request, out=request.out / name), machine)]
    clear_leftovers(request.out)
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


def _report(root: Path, fold_dirs: Sequence[Path], as_json: bool) -> None:
    pooled = pool_folds(fold_dirs, root)
    if as_json:
        print_json({"kfold": str(root), "results": pooled.to_dict()})
        return
    print_text(pooled.text())
    print_text(f"Look at {root / 'summary.md'}")
