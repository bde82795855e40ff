"""The options of a training, shared by ``ltrain train`` and ``ltrain kfold``, and what they mean together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.options import (
    FOLDER,
    LOCATION,
    SEED,
    Decorator,
    augment_option,
    complete_plan,
    json_option,
    local_copies_options,
    model_option,
    with_options,
)
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.sources.source_choice import DEFAULT_CACHE_ROOT

OPTIMIZERS = ("sgd", "adamw", "ranger21")
SCHEDULES = ("cosine", "constant", "step", "warm-restarts", "one-cycle", "plateau")

_cache_options = with_options(
    click.option(
        "--cache",
        type=LOCATION,
        default=DEFAULT_CACHE_ROOT,
        envvar="LTRAIN_CACHE",
        show_envvar=True,
        help="A cache, or a folder of caches of which one fits --size, or each stage of the plan; or a URL of either. "
        "Of several machines each may name its own copy.",
    ),
    click.option("--size", "size_px", type=int, help="Choose the cache of this size."),
    click.option("--recipe", help="Choose the cache of this recipe."),
)
_data_options = with_options(
    click.option("--seed", default=0, type=SEED, help="Of weights, order and augmentation."),
    click.option(
        "--split-seed",
        default=0,
        type=SEED,
        help="Of the split: which subjects train, validate and test. --seed alone changes none of it.",
    ),
    click.option(
        "--positive",
        metavar="CLASS",
        help="The class whose recall is the sensitivity.  [default: as the cache was built, or as the names say]",
    ),
    click.option(
        "--allow-leak", is_flag=True, help="Train although patients are on both sides; everything is then stamped."
    ),
    click.option(
        "--normalize",
        default="train",
        help="train: exact mean and std of the training images; imagenet: those of most weights to start from; or six "
        "numbers, mean R,G,B and std R,G,B.",
    ),
    click.option("--force-normalize", is_flag=True, help="Use such numbers even if they do not fit the images."),
)

_learning_options = with_options(
    click.option(
        "--plan",
        shell_complete=complete_plan,
        help="Train by a plan of stages: a name from `ltrain plans`, or a file (.toml). It sets what follows.",
    ),
    click.option("--epochs-scale", default=1.0, help="Make the plan's stages this much longer."),
    model_option,
    click.option("--epochs", type=click.IntRange(1), help="[default: 30, or those of --sizes]"),
    click.option(
        "--sizes",
        metavar="SIDE:EPOCHS,...",
        help="Train at small sizes first, such as 64:5,96:4,128:3: from the cache of 128 px, reduced to 64 px for "
        "5 epochs, then to 96 px for 4.",
    ),
    click.option("--batch-size", default=64, type=click.IntRange(2), help="Of all processes together."),
    augment_option,
    click.option(
        "--sampling",
        type=click.Choice(["uniform", "class-balanced", "subject-balanced"]),
        default="uniform",
        help="Each image once an epoch; or each class, or each subject, equally often.",
    ),
    click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="sgd"),
    click.option("--lr", type=float, help="Highest learning rate.  [default: 0.005 for sgd, else 0.001]"),
    click.option("--momentum", type=float, help="Of sgd.  [default: 0.9]"),
    click.option("--weight-decay", type=float, help="[default: 0.0001; 0.01 for adamw]"),
    click.option(
        "--schedule",
        type=click.Choice(SCHEDULES),
        help="Course of the learning rate.  [default: cosine; for ranger21 its own]",
    ),
    click.option("--warmup-epochs", default=0.0, help="Epochs in which the learning rate rises from 0."),
    click.option("--clip-norm", type=float, help="Longest gradient; longer ones are shortened to it."),
    click.option("--label-smoothing", default=0.0),
    click.option(
        "--class-weights",
        type=click.Choice(["none", "balanced"]),
        default="none",
        help="balanced: an image of a rare class weighs more in the loss.",
    ),
    click.option("--early-stopping", type=click.IntRange(1), help="End after this many epochs without a better one."),
    click.option("--ema", type=float, help="Evaluate a moving average of the weights with this decay, such as 0.999."),
    click.option(
        "--start",
        default="scratch",
        help="scratch, or a file of weights: a checkpoint, or a network of torchvision, timm and others (.safetensors, "
        ".pth, .pt). A head for other classes is drawn anew.",
    ),
)

_machine_options = with_options(
    local_copies_options,
    click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        default="auto",
        help="Of the network while it trains; evaluation is in fp32. auto: bf16 where the device computes in it (CUDA "
        "from Ampere on, CPUs with AVX512-BF16 or AMX), else fp32. With --resume: where the run's own is missing.",
    ),
    click.option("--amp/--no-amp", default=False, hidden=True),
    click.option("--tf32/--no-tf32", default=True, help="Let CUDA round to TF32 in convolutions of fp32."),
    click.option("--compile/--no-compile", "compile", default=False, help="Compile the network with torch.compile."),
    click.option(
        "--sync-batchnorm/--no-sync-batchnorm",
        default=False,
        help="Of several processes: BatchNorm over what all have at a time (two exchanges a layer), or over each "
        "process's own images.",
    ),
    click.option(
        "--accumulate",
        default=1,
        type=click.IntRange(1),
        help="Work through each process's part of a batch in so many micro-batches, with one optimizer step: less "
        "memory, the same batch. BatchNorm sees one micro-batch at a time.",
    ),
    click.option(
        "--residency",
        type=click.Choice(["auto", "mapped", "ram", "device"]),
        default="auto",
        help="Where pixels are kept: auto takes the device if they fit, else memory if they fit, else maps the files.",
    ),
    click.option(
        "--num-threads", type=click.IntRange(1), help="Threads that prepare batches.  [default: one a core, at most 4]"
    ),
    click.option(
        "--save-minutes",
        default=10.0,
        type=click.FloatRange(0, 525_600),
        help="Save within an epoch when the last checkpoint is this old; 0: after every step.",
    ),
    click.option(
        "--wait-minutes",
        default=30.0,
        type=click.FloatRange(0, 525_600, min_open=True),
        help="Of several processes: how long they wait for one another, as while the first one evaluates.",
    ),
    click.option(
        "--check/--no-check",
        "check",
        default=True,
        help="Read every byte of the shards to be used first, and refuse damaged ones.",
    ),
)

_evaluation_options = with_options(
    click.option(
        "--tta",
        default="none",
        help="Evaluate by the mean answer to several views of an image: none, d4 (flips, quarter turns), rotations:N.",
    ),
    click.option("--tta-average", type=click.Choice(["logits", "probabilities"]), default="logits"),
    click.option(
        "--batchnorm",
        type=click.Choice(["auto", "running", "reestimated"]),
        default="auto",
        help="BatchNorm statistics to evaluate with; auto re-estimates them on clean training images where that helps.",
    ),
)

_run_options = with_options(
    click.option("--out", type=FOLDER, help="Folder to write.  [default: runs/...]"),
    click.option("--resume", is_flag=True, help="Go on with what is in --out where it stopped."),
    click.option(
        "--extend",
        type=click.Choice(["stretch", "restart"]),
        default="stretch",
        help="Of --resume with a larger --epochs: the schedule over all epochs, or a new one over those added.",
    ),
    click.option(
        "--resume-if-begun",
        is_flag=True,
        help="Begin the run in --out, or go on with it if this command line has begun it: for jobs that are started "
        "again. torchrun --max-restarts implies it.",
    ),
    json_option,
)


valid_from_train_option = click.option(
    "--valid-from-train",
    type=click.FloatRange(0, 0.5, min_open=True),
    metavar="SHARE",
    help="Draw this share of the training images to validate by, where the split has no such part: given, official, "
    "leave-out, test-fold. Whole subjects where they are known.",
)


def training_options(*own_options: Decorator) -> Decorator:
    """Return a decorator that adds the options of a training to a command, its own ones after those of the cache."""
    return with_options(
        _cache_options,
        *own_options,
        _data_options,
        _learning_options,
        _evaluation_options,
        _machine_options,
        _run_options,
    )


STAGE_OPTIONS = (
    *(
        "size_px",
        "recipe",
        "model",
        "epochs",
        "sizes",
        "batch_size",
        "augment",
        "sampling",
        "optimizer",
        "lr",
        "momentum",
    ),
    *("weight_decay", "schedule", "warmup_epochs", "clip_norm", "label_smoothing", "class_weights", "early_stopping"),
    *("ema", "start"),
)
"""Options that describe one stage; a plan has them in its file instead."""
MACHINE_OPTIONS = ("device", "num_threads", "residency", "save_minutes", "wait_minutes", "check")
_FREE_ON_RESUME = {
    *("out", "resume", "resume_if_begun", "as_json", "epochs", "extend", "accumulate", "precision"),
    *("cache", "copies_dir", "copies_gb", *MACHINE_OPTIONS),
}
"""Options that a run has not decided already."""


def check_options(given: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Refuse options that are wrong whatever the caches and runs hold, before anything heavy is loaded.

    Parameters
    ----------
    given
        The options that the user set, as they are written, by parameter.
    options
        All options, by parameter.

    Raises
    ------
    UsageError, CacheError
        For options that exclude each other, names that are unknown, paths where nothing is.
    """
    if options["resume"]:
        _check_resumed(given, options)
        return
    plan, clashing = options["plan"], ", ".join(given[name] for name in sorted(given.keys() & STAGE_OPTIONS))
    if plan is not None and clashing:
        raise UsageError(f"--plan sets {clashing}: leave them out, or change a copy of the plan")
    if "amp" in given and "precision" in given:
        raise UsageError(f"{given['amp']} is an earlier name of --precision: leave it out")
    if plan is None and "epochs_scale" in given:
        raise UsageError("--epochs-scale is for --plan; without one say --epochs")
    if isinstance(options["cache"], Path) and not options["cache"].exists():
        raise CacheError(f"there is no folder {options['cache']}: make a cache with `ldata build SOURCE`")
    if plan is not None:
        from leukemia_models.training.plan_file import plan_path

        plan_path(plan)


def _check_resumed(given: Mapping[str, str], options: Mapping[str, Any]) -> None:
    if options["out"] is None:
        raise UsageError("--resume needs --out: the folder to go on with")
    decided = ", ".join(given[name] for name in sorted(given.keys() - _FREE_ON_RESUME))
    if decided:
        raise UsageError(f"--resume takes the run's own settings: leave out {decided}")
    if not options["out"].exists():
        raise UsageError(f"{options['out']} does not exist: name the folder of a run")
