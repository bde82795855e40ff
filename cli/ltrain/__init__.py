"""The command ``ltrain``: with options alone it trains; subcommands judge and predict."""

from __future__ import annotations

from typing import Any

import click

from cli.lazy_group import LazyGroup
from cli.ltrain.options import given_options, training_options, typed_options, valid_from_train_option
from cli.ltrain.train import split_option, train
from cli.options import option_name
from leukemia_data.errors import UsageError

_COMMANDS = {
    "kfold": ("cli.ltrain.train:kfold_command", "Cross-validate: train and judge fold by fold."),
    "plans": ("cli.ltrain.plans", "List the shipped training plans, or check and show one."),
    "models": ("cli.ltrain.models", "List the networks, with parameters and multiply-adds."),
    "evaluate": ("cli.ltrain.evaluate", "Judge a run on one part of its split."),
    "compare": ("cli.ltrain.compare", "Compare runs: curves, confusion matrices, ROC, paired differences."),
    "predict": ("cli.ltrain.predict", "Predict a part of the split, or image files."),
    "submit": ("cli.ltrain.submit", "Write the lab's submission files for several test lists."),
    "preview-augment": ("cli.ltrain.preview_augment", "Draw what training sees: cells after random augmentation."),
    "batchnorm-demo": ("cli.ltrain.batchnorm", "Reproduce the second report's BatchNorm mystery, and its cure."),
}


@click.group(
    "ltrain",
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="leukemia-cells", prog_name="ltrain")
@training_options(split_option, valid_from_train_option)
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Train a ResNet on a cache and judge it, or use a finished run.

    Every result carries its kind of split. The default keeps all cells of a person on one side; expect 0.83 to 0.91
    weighted F1 from it on C-NMC. A split that puts patients on both sides, such as `--split image`, is refused unless
    `--allow-leak` is given, and its numbers say nothing about new patients.

    \b
    Examples:
      ltrain --cache cache --size 128 --model resnet18 --epochs 10
      ltrain --size 224 --model resnet50 --split fold:1/5 --out runs/r50-fold1
      ltrain --size 128 --augment report-b --sampling class-balanced --optimizer adamw --ema 0.999
      ltrain --plan report-a-resnet50 --epochs-scale 0.02 --out runs/trial
      ltrain --out runs/trial --resume
      ltrain kfold --folds 5 --size 128 --epochs 20
      torchrun --nproc-per-node 2 --no-python ltrain --size 128 --epochs 10
      ltrain --size 224 --batch-size 256 --accumulate 4 --out runs/job --resume-if-begun
      ltrain evaluate runs/r50-fold1 --part valid
      ltrain predict runs/r50-fold1 new-cells --out predictions.csv
    """
    if context.invoked_subcommand is not None:
        typed = typed_options(context, options)
        if typed:
            names = ", ".join(sorted(option_name(name) for name in typed))
            raise UsageError(
                f"{names}: options before {context.invoked_subcommand} are for training; write them after it"
            )
        return
    train(given_options(context, options), options)
