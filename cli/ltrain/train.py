"""``ltrain train`` and ``ltrain kfold``: train a network on a cache and evaluate it, once or fold by fold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import CONSOLE, print_result
from cli.ltrain.options import MACHINE_OPTIONS, STAGE_OPTIONS, check_options, training_options, valid_from_train_option
from cli.options import OptionValue, given_options
from leukemia_data.errors import UsageError

if TYPE_CHECKING:
    from leukemia_models.runs.train_plan import TrainedRuns
    from leukemia_models.training.training_plan import TrainingPlan

split_option = click.option(
    "--split",
    default="subject",
    show_default=True,
    help="subject, given, fold:K/N, test-fold:K/N, official:K, leave-out:SUBJECT,..., or image (patient-mixed).",
)


@click.command("train")
@training_options(split_option, valid_from_train_option)
def train(**options: OptionValue) -> None:
    """Train a network on a cache and evaluate it; or go on with --resume where a killed run stopped.

    Every result carries its kind of split. The default keeps all cells of a person on one side; expect 0.83 to 0.91
    weighted F1 from it on C-NMC. A split that puts patients on both sides, such as `--split image`, is refused unless
    `--allow-leak` is given, and its numbers say nothing about new patients.

    \b
    Examples:
      ltrain train --cache cache --size 128 --model resnet18 --epochs 10
      ltrain train --size 224 --model resnet50 --split fold:1/5 --out runs/r50-fold1
      ltrain train --size 128 --augment report-b --sampling class-balanced --optimizer adamw --ema 0.999
      ltrain train --plan report-a-resnet50 --epochs-scale 0.02 --out runs/trial
      ltrain train --out runs/trial --resume
      torchrun --nproc-per-node 2 --no-python ltrain train --size 128 --epochs 10
      ltrain train --size 224 --batch-size 256 --accumulate 4 --out runs/job --resume-if-begun
    """
    given = given_options()
    check_options(given, options)
    if not options["resume"] and "extend" in given:
        raise UsageError("--extend is for --resume with another --epochs")
    # torch takes seconds to load: not for --help, nor for a wrong option.
    from leukemia_models.runs import train_plan
    from leukemia_models.runs.resume_runs import RunChanges

    common = _common(given, options, "ltrain")
    if options["resume"]:
        changes = RunChanges(**_set(given, options, "epochs", "extend", "accumulate", "precision"))
        trained = train_plan.resume(options["out"], changes=changes, **common)
    else:
        trained = train_plan.train_plan(**_beginning(given, options, options["split"]), **common)
    if trained.is_first:
        print_result(trained, _run_lines(trained), as_json=options["as_json"])


@click.command("kfold")
@training_options(
    click.option(
        "--folds",
        help="A number: whole subjects in so many parts; official: the source's own folds; loso: each subject once.  "
        "[default: the plan's, else 5]",
    ),
    click.option(
        "--inner-valid",
        is_flag=True,
        help="Set 15 % of each fold's training subjects apart, to choose the best epoch by.  [default: the last epoch]",
    ),
    valid_from_train_option,
)
def kfold(**options: OptionValue) -> None:
    """Train a fresh network for every fold, evaluate it on the subjects held out, and pool their predictions.

    Everything starts anew in each fold: weights, optimizer, order, statistics. Nothing is chosen by the held-out
    images: the last epoch is evaluated, or with --inner-valid the best one on subjects set apart for that. All samples
    of a person, and of people who share identical images, are in one fold. --resume goes on where a killed run stopped.

    \b
    Examples:
      ltrain kfold --folds 5 --size 128 --epochs 20 --out runs/five
      ltrain kfold --folds official --plan report-b-ranger21 --inner-valid --allow-leak
      ltrain kfold --folds loso --size 128 --epochs 10 --tta d4
      ltrain kfold --out runs/five --resume
    """
    given = given_options()
    check_options(given, options)
    if "extend" in given:
        raise UsageError("--extend: the folds of a cross-validation keep their length; start a new one")
    if options["inner_valid"] and options["valid_from_train"] is not None:
        raise UsageError("--valid-from-train names the share that --inner-valid takes: give one of them")
    if options["resume"] and "epochs" in given:
        raise UsageError("--epochs: the folds of a cross-validation keep their length; start a new one")
    from leukemia_data.splitting.split_spec import VALID_SHARE
    from leukemia_models.comparing.kfold import cross_validate, resume_cross_validation
    from leukemia_models.runs.resume_runs import RunChanges

    common = _common(given, options, "ltrain kfold")
    if options["resume"]:
        changes = RunChanges(**_set(given, options, "accumulate", "precision"))
        trained = resume_cross_validation(options["out"], changes=changes, **common)
    else:
        valid_share = VALID_SHARE if options["inner_valid"] else options["valid_from_train"] or 0.0
        trained = cross_validate(
            folds=options["folds"], valid_share=valid_share, **_beginning(given, options, ""), **common
        )
    if trained.pooled is not None:
        found = {"kfold": str(trained.root), "results": trained.pooled.to_dict()}
        lines = (trained.pooled.text(), f"Look at {trained.root / 'summary.md'}")
        print_result(found, lines, as_json=options["as_json"])


def _set(given: Mapping[str, str], options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return those of some options that the user set."""
    return {name: options[name] for name in names if name in given}


def _plan(given: Mapping[str, str], options: Mapping[str, Any]) -> TrainingPlan:
    """Return the plan of a file or of the options, changed by those for evaluation and machine."""
    from leukemia_models.training.plan_file import load_plan
    from leukemia_models.training.training_plan import scaled, single_stage_plan, with_evaluation, with_settings

    if options["plan"] is not None:
        plan = scaled(load_plan(options["plan"]), options["epochs_scale"])
    else:
        plan = single_stage_plan(**{name: options[name] for name in STAGE_OPTIONS})
    plan = with_evaluation(plan, **_set(given, options, "tta", "tta_average", "batchnorm"))
    if "amp" in given:
        plan = with_settings(plan, precision="amp" if options["amp"] else "fp32")
    return with_settings(plan, **_set(given, options, "precision", "tf32", "compile", "sync_batchnorm", "accumulate"))


def _beginning(given: Mapping[str, str], options: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return what a new run takes; `split` is empty for a cross-validation, which has its own."""
    from leukemia_data.splitting.split_spec import parse_split, with_valid_share
    from leukemia_models.runs.run_config import RunOptions

    share = options["valid_from_train"]
    names = ("split_seed", "seed", "positive", "allow_leak", "normalize", "force_normalize")
    return {
        "plan": _plan(given, options),
        "cache": options["cache"],
        "options": RunOptions(
            split=with_valid_share(parse_split(split), share) if split and share is not None else split,
            **{name: options[name] for name in names},
        ),
        "out": options["out"],
        "resume_if_begun": options["resume_if_begun"],
        **_set(given, options, "accumulate"),
    }


def _common(given: Mapping[str, str], options: Mapping[str, Any], program: str) -> dict[str, Any]:
    from leukemia_models.runs.run_config import MachineOptions

    machine = {name: options[name] for name in ("copies", *MACHINE_OPTIONS)}
    return {
        "machine": MachineOptions(**machine, **_set(given, options, "cache")),
        "environment": os.environ,
        "resume_text": lambda folder: f"{program} --out {_word(folder)} --resume",
        "console": CONSOLE,
    }


def _word(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)


def _run_lines(trained: TrainedRuns) -> Iterator[str]:
    from leukemia_models.reports.results import results_text

    yield results_text(trained.results)
    folder = trained.folders[-1]
    # The test part, where there is one: its numbers are those to quote.
    parts = [part for part in ("test", "valid") if part in trained.results]
    pages = [str(folder.part(part) / "summary.md") for part in parts[:1]]
    yield f"Look at {' and '.join([str(folder.history_figure), *pages])}"
