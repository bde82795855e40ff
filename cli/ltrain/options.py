"""The options of a training, shared by ``ltrain train`` and ``ltrain kfold``, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.options import (
    DEFAULT_CACHE_ROOT,
    LocalPath,
    LocationType,
    augment_option,
    complete_model,
    complete_plan,
    local_copies_gb_option,
    local_copies_option,
    option_name,
    seed_type,
)
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.registry import did_you_mean

OPTIMIZERS = ("sgd", "adamw", "ranger21")
SCHEDULES = ("cosine", "constant", "step", "warm-restarts", "one-cycle", "plateau")
_DEFAULT_MODEL = "resnet18"
_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def _known_model(context: click.Context, parameter: click.Parameter, model: str) -> str:
    """Refuse a name that no network has."""
    from leukemia_models.networks.registry import model_names

    if model not in model_names():
        known = ", ".join(model_names())
        raise click.BadParameter(f"unknown model {model!r}{did_you_mean(model, model_names())}; known are {known}")
    return model


_DATA_OPTIONS = (
    click.option(
        "--cache",
        type=LocationType(),
        default=DEFAULT_CACHE_ROOT,
        show_default=True,
        envvar="LTRAIN_CACHE",
        show_envvar=True,
        help="A cache, or a folder of caches of which one fits --size, or each stage of the plan; or a URL of either. "
        "Of several machines each may name its own copy.",
    ),
    click.option("--size", "size_px", type=int, help="Choose the cache of this size."),
    click.option("--recipe", help="Choose the cache of this recipe."),
    click.option("--seed", default=0, show_default=True, type=seed_type, help="Of weights, order and augmentation."),
    click.option(
        "--split-seed",
        default=0,
        show_default=True,
        type=seed_type,
        help="Of the split: who trains, who validates, who tests. --seed alone moves nobody.",
    ),
    click.option(
        "--positive",
        metavar="CLASS",
        help="The class whose recall is the sensitivity.  [default: as the cache was built, or as the names tell]",
    ),
    click.option(
        "--allow-leak", is_flag=True, help="Train although patients are on both sides; everything is then stamped."
    ),
    click.option(
        "--normalize",
        default="train",
        show_default=True,
        help="train: exact mean and std of the training images; or six numbers, mean R,G,B and std R,G,B.",
    ),
    click.option("--force-normalize", is_flag=True, help="Use the six numbers even if they do not fit the images."),
)

_LEARNING_OPTIONS = (
    click.option(
        "--plan",
        shell_complete=complete_plan,
        help="Train by a plan of stages: a name from `ltrain plans`, or a file (.toml). It sets what follows.",
    ),
    click.option("--epochs-scale", default=1.0, show_default=True, help="Make the plan's stages this much longer."),
    click.option(
        "--model",
        default=_DEFAULT_MODEL,
        show_default=True,
        callback=_known_model,
        shell_complete=complete_model,
        help="Name of a network, see `ltrain models`.",
    ),
    click.option("--epochs", default=30, show_default=True, type=click.IntRange(1)),
    click.option(
        "--batch-size", default=64, show_default=True, type=click.IntRange(2), help="Of all processes together."
    ),
    augment_option,
    click.option(
        "--sampling",
        type=click.Choice(["uniform", "class-balanced", "subject-balanced"]),
        default="uniform",
        show_default=True,
        help="Each image once an epoch; or each class, or each subject, equally often.",
    ),
    click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="sgd", show_default=True),
    click.option("--lr", type=float, help="Highest learning rate.  [default: 0.005 for sgd, else 0.001]"),
    click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]"),
    click.option("--weight-decay", type=float, help="[default: 0.0001; 0.01 for adamw]"),
    click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        help="Course of the learning rate.  [default: cosine; for ranger21 its own]",
    ),
    click.option(
        "--warmup-epochs", default=0.0, show_default=True, help="Epochs in which the learning rate rises from 0."
    ),
    click.option("--clip-norm", type=float, help="Longest gradient; longer ones are shortened to it."),
    click.option("--label-smoothing", default=0.0, show_default=True),
    click.option(
        "--class-weights",
        type=click.Choice(["none", "balanced"]),
        default="none",
        show_default=True,
        help="balanced: an image of a rare class weighs more in the loss.",
    ),
    click.option("--early-stopping", type=click.IntRange(1), help="End after this many epochs without a better one."),
    click.option("--ema", type=float, help="Evaluate a moving average of the weights with this decay, such as 0.999."),
    click.option(
        "--start",
        default="scratch",
        show_default=True,
        help="scratch, or a .safetensors file with weights to start from.",
    ),
)

_MACHINE_OPTIONS = (
    local_copies_option,
    local_copies_gb_option,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option("--amp/--no-amp", default=False, help="Mixed precision, on CUDA only."),
    click.option("--compile/--no-compile", "compile", default=False, help="Compile the network with torch.compile."),
    click.option(
        "--sync-batchnorm/--no-sync-batchnorm",
        default=True,
        show_default=True,
        help="Of several processes: BatchNorm over what all have at a time, or over each process's own images.",
    ),
    click.option(
        "--accumulate",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Work through each process's part of a batch in so many micro-batches, with one optimizer step: less "
        "memory, the same batch. BatchNorm sees one micro-batch at a time.",
    ),
    click.option(
        "--residency",
        type=click.Choice(["auto", "mapped", "ram", "device"]),
        default="auto",
        show_default=True,
        help="Where pixels are kept: auto takes the device if they fit, else memory if they fit, else maps the files.",
    ),
    click.option(
        "--num-threads", type=click.IntRange(1), help="Threads that prepare batches.  [default: one a core, at most 4]"
    ),
    click.option(
        "--save-minutes",
        default=10.0,
        show_default=True,
        type=click.FloatRange(0, 525_600),
        help="Save within an epoch when the last checkpoint is this old; 0: after every step.",
    ),
    click.option(
        "--wait-minutes",
        default=30.0,
        show_default=True,
        type=click.FloatRange(0, 525_600, min_open=True),
        help="Of several processes: how long they wait for one another, as while the first one evaluates.",
    ),
    click.option(
        "--check/--no-check",
        "check",
        default=True,
        show_default=True,
        help="Read every byte of the shards to be used first, and refuse damaged ones.",
    ),
)

_EVALUATION_OPTIONS = (
    click.option(
        "--tta",
        default="none",
        show_default=True,
        help="Evaluate by the mean answer to several views of an image: none, d4 (flips, quarter turns), rotations:N.",
    ),
    click.option("--tta-average", type=click.Choice(["logits", "probabilities"]), default="logits", show_default=True),
    click.option(
        "--batchnorm",
        type=click.Choice(["auto", "running", "reestimated"]),
        default="auto",
        show_default=True,
        help="BatchNorm statistics to evaluate with; auto re-estimates them on clean training images where that helps.",
    ),
)

_RUN_OPTIONS = (
    click.option(
        "--out", type=LocalPath(path_type=Path, file_okay=False), help="Folder to write.  [default: runs/...]"
    ),
    click.option("--resume", is_flag=True, help="Go on with what is in --out where it stopped."),
    click.option(
        "--extend",
        type=click.Choice(["stretch", "restart"]),
        default="stretch",
        show_default=True,
        help="Of --resume with a larger --epochs: the schedule over all epochs, or a new one over those added.",
    ),
    click.option(
        "--resume-if-begun",
        is_flag=True,
        help="Begin the run in --out, or go on with it if this command line has begun it: for jobs that are started "
        "again. torchrun --max-restarts implies it.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout."),
)


valid_from_train_option = click.option(
    "--valid-from-train",
    type=click.FloatRange(0, 0.5, min_open=True),
    metavar="SHARE",
    help="Draw this share of the training images to validate by, where the split has no such part: given, official, "
    "leave-out, test-fold. Whole subjects where they are known.",
)


def training_options(*own_options: _Option) -> Callable[[_Command], _Command]:
    """Give a command the options of a training, its own ones after those of the data."""
    options: tuple[_Option, ...] = (
        *_DATA_OPTIONS[:3],
        *own_options,
        *_DATA_OPTIONS[3:],
        *_LEARNING_OPTIONS,
        *_EVALUATION_OPTIONS,
        *_MACHINE_OPTIONS,
        *_RUN_OPTIONS,
    )

    def decorate(command: _Command) -> _Command:
        # click's options hang themselves on the function and hand it back.
        for option in reversed(options):
            option(command)
        return command

    return decorate


def given_options(context: click.Context, options: dict[str, Any]) -> frozenset[str]:
    """Names of the options that the user set."""
    sources = {name: context.get_parameter_source(name) for name in options}
    return frozenset(
        name for name, source in sources.items() if source not in (None, click.core.ParameterSource.DEFAULT)
    )


STAGE_OPTIONS = (
    *("size_px", "recipe", "model", "epochs", "batch_size", "augment", "sampling", "optimizer", "lr", "momentum"),
    *("weight_decay", "schedule", "warmup_epochs", "clip_norm", "label_smoothing", "class_weights", "early_stopping"),
    *("ema", "start"),
)
"""Options that describe one stage; a plan has them in its file instead."""
FREE_ON_RESUME = frozenset(
    {
        *("out", "resume", "resume_if_begun", "as_json", "epochs", "extend", "accumulate", "cache"),
        *(
            "local_copies",
            "local_copies_gb",
            "device",
            "residency",
            "num_threads",
            "save_minutes",
            "wait_minutes",
            "check",
        ),
    }
)
"""Options that a run has not decided already."""


def check_options(given: frozenset[str], options: Mapping[str, Any]) -> None:
    """Refuse what the options alone show to be wrong, before anything heavy is loaded.

    Raises
    ------
    UsageError, RunError, CacheError
        For options that exclude each other, names that are unknown, paths where nothing is.
    """
    if options["resume"]:
        _check_resumed(given, options)
        return
    _require_plan_alone(given, options["plan"])
    if isinstance(options["cache"], Path) and not options["cache"].exists():
        raise CacheError(f"there is no folder {options['cache']}: make a cache with `ldata build SOURCE`")
    if options["plan"] is not None:
        _require_plan(options["plan"])


def _check_resumed(given: frozenset[str], options: Mapping[str, Any]) -> None:
    if options["out"] is None:
        raise UsageError("--resume needs --out: the folder to go on with")
    changed = sorted(given - FREE_ON_RESUME)
    if changed:
        names = ", ".join(map(option_name, changed))
        raise UsageError(f"--resume takes the run's own settings: leave out {names}")
    if not options["out"].exists():
        raise UsageError(f"{options['out']} does not exist: name the folder of a run")


def _require_plan_alone(given: frozenset[str], plan: str | None) -> None:
    """Refuse options that a plan sets, and a scale without a plan."""
    clashing = sorted(given.intersection(STAGE_OPTIONS))
    if plan is not None and clashing:
        raise UsageError(
            f"--plan sets {', '.join(map(option_name, clashing))}: leave them out, or change a copy of the plan"
        )
    if plan is None and "epochs_scale" in given:
        raise UsageError("--epochs-scale is for --plan; without one say --epochs")


def _require_plan(plan: str) -> None:
    if plan.endswith(".toml"):
        if not Path(plan).is_file():
            raise UsageError(f"plan file not found: {plan}")
        return
    names = sorted(Path(file.name).stem for file in files("leukemia_models").joinpath("training/plans").iterdir())
    if plan not in names:
        raise UsageError(
            f"unknown plan {plan!r}{did_you_mean(plan, names)}; `ltrain plans` lists them, or name a .toml file"
        )
