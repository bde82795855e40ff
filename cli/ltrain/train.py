"""``ltrain train`` and ``ltrain kfold``: train a network on a cache and evaluate it, once or fold by fold."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import CONSOLE, print_json, print_text
from cli.ltrain.options import (
    STAGE_OPTIONS,
    check_options,
    given_options,
    training_options,
    valid_from_train_option,
)
from leukemia_data.errors import UsageError

if TYPE_CHECKING:
    from leukemia_models.comparing.kfold import TrainedFolds
    from leukemia_models.runs.run_config import RunOptions
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
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
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
    train(given_options(context, options), options)


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
@click.pass_context
def kfold_command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
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
    cross_validate(given_options(context, options), options)


def train(given: frozenset[str], options: Mapping[str, Any]) -> None:
    """Begin or resume a run, or the stages of a plan, and print the results.

    Parameters
    ----------
    given
        Names of the options that the user set.
    options
        All of them, as ``ltrain train`` declares them.
    """
    check_options(given, options)
    if not options["resume"] and "extend" in given:
        raise UsageError("--extend is for --resume with another --epochs")
    # torch takes seconds to load: not for --help, nor for a wrong option.
    from leukemia_models.runs.resume_runs import RunChanges
    from leukemia_models.runs.train_plan import resume, train_plan

    common = _common(given, options, "ltrain")
    if options["resume"]:
        epochs, extend, accumulate = (_given(name, given, options) for name in ("epochs", "extend", "accumulate"))
        trained = resume(
            options["out"], changes=RunChanges(epochs=epochs, extend=extend, accumulate=accumulate), **common
        )
    else:
        trained = train_plan(
            _plan(given, options),
            options["cache"],
            options=_run_options(options, options["split"]),
            **_beginning(given, options),
            **common,
        )
    if trained.is_first:
        _print_runs(trained, as_json=options["as_json"])


def cross_validate(given: frozenset[str], options: Mapping[str, Any]) -> None:
    """Begin or resume a cross-validation, and print the pooled results."""
    check_options(given, options)
    if "extend" in given:
        raise UsageError("--extend: the folds of a cross-validation keep their length; start a new one")
    if options["inner_valid"] and options["valid_from_train"] is not None:
        raise UsageError("--valid-from-train names the share that --inner-valid takes: give one of them")
    if options["resume"] and "epochs" in given:
        raise UsageError("--epochs: the folds of a cross-validation keep their length; start a new one")
    from leukemia_data.splitting.split_spec import VALID_SHARE
    from leukemia_models.comparing import kfold

    common = _common(given, options, "ltrain kfold")
    if options["resume"]:
        accumulate = _given("accumulate", given, options)
        trained = kfold.resume_cross_validation(options["out"], accumulate=accumulate, **common)
    else:
        trained = kfold.cross_validate(
            _plan(given, options),
            options["cache"],
            folds=options["folds"],
            valid_share=VALID_SHARE if options["inner_valid"] else options["valid_from_train"] or 0.0,
            options=_run_options(options, ""),
            **_beginning(given, options),
            **common,
        )
    if trained.pooled is not None:
        _print_folds(trained, as_json=options["as_json"])


def _given(name: str, given: frozenset[str], options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an option's value
    """An option's value where the user set it, else None: what is there keeps its own."""
    return options[name] if name in given else None


def _plan(given: frozenset[str], options: Mapping[str, Any]) -> TrainingPlan:
    """The plan of a file, or of the options; with what the options say over what the file says."""
    from leukemia_models.training.training_plan import scaled, single_stage_plan, with_evaluation, with_settings

    if options["plan"] is not None:
        from leukemia_models.training.plan_file import load_plan

        plan = scaled(load_plan(options["plan"]), options["epochs_scale"])
    else:
        plan = single_stage_plan(**{name: options[name] for name in STAGE_OPTIONS})
    evaluation = {name: _given(name, given, options) for name in ("tta", "tta_average", "batchnorm")}
    machine = ("amp", "compile", "sync_batchnorm", "accumulate")
    return with_settings(
        with_evaluation(plan, **evaluation), **{name: options[name] for name in machine if name in given}
    )


def _run_options(options: Mapping[str, Any], split: str) -> RunOptions:
    from leukemia_data.splitting.split_spec import parse_split, with_valid_share
    from leukemia_models.runs.run_config import RunOptions

    share = options["valid_from_train"]
    return RunOptions(
        split=with_valid_share(parse_split(split), share) if split and share is not None else split,
        split_seed=options["split_seed"],
        seed=options["seed"],
        positive=options["positive"],
        allow_leak=options["allow_leak"],
        normalize=options["normalize"],
        force_normalize=options["force_normalize"],
    )


def _beginning(given: frozenset[str], options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "out": options["out"],
        "resume_if_begun": options["resume_if_begun"],
        "accumulate": _given("accumulate", given, options),
    }


def _common(given: frozenset[str], options: Mapping[str, Any], program: str) -> dict[str, Any]:
    from leukemia_data.caches.opening import LocalCopiesChoice
    from leukemia_models.runs.run_config import MachineOptions

    machine = MachineOptions(
        device=options["device"],
        num_threads=options["num_threads"],
        residency=options["residency"],
        save_minutes=options["save_minutes"],
        wait_minutes=options["wait_minutes"],
        check=options["check"],
        cache=_given("cache", given, options),
        copies=LocalCopiesChoice(options["local_copies"], options["local_copies_gb"]),
    )
    return {
        "machine": machine,
        "environment": os.environ,
        "resume_text": _resume_command(program),
        "console": CONSOLE,
    }


def _resume_command(program: str) -> Callable[[Path], str]:
    return lambda folder: f"{program} --out {_word(folder)} --resume"


def _word(path: Path) -> str:
    """A path as one word of a command line."""
    return f'"{path}"' if " " in str(path) else str(path)


def _print_runs(trained: TrainedRuns, *, as_json: bool) -> None:
    from leukemia_models.reports.results import results_text

    if as_json:
        print_json(trained.to_dict())
        return
    print_text(results_text(trained.results))
    folder = trained.folders[-1]
    # The test part, where there is one: its numbers are those to quote.
    parts = [part for part in ("test", "valid") if part in trained.results]
    pages = [str(folder.part(part) / "summary.md") for part in parts[:1]]
    print_text(f"Look at {' and '.join([str(folder.history_figure), *pages])}")


def _print_folds(trained: TrainedFolds, *, as_json: bool) -> None:
    assert trained.pooled is not None
    if as_json:
        print_json({"kfold": str(trained.root), "results": trained.pooled.to_dict()})
        return
    print_text(trained.pooled.text())
    print_text(f"Look at {trained.root / 'summary.md'}")
