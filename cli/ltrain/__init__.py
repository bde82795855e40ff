"""The command ``ltrain``: train networks, evaluate them and predict; with options alone it trains."""

from __future__ import annotations

import click

from cli.main_group import MainGroup
from leukemia_data import __version__

_COMMANDS = {
    "train": ("cli.ltrain.train:train", "Train a network on a cache and evaluate it; the word may be left out."),
    "kfold": ("cli.ltrain.train:kfold", "Cross-validate: train and evaluate fold by fold."),
    "plans": ("cli.ltrain.look:plans", "List the shipped training plans, or check and show one."),
    "models": ("cli.ltrain.look:models", "List the networks, with parameters and multiply-adds."),
    "evaluate": ("cli.ltrain.use:evaluate", "Evaluate a run on one part of its split, or on other images."),
    "compare": ("cli.ltrain.look:compare", "Compare runs: curves, confusion matrices, ROC, paired differences."),
    "predict": ("cli.ltrain.use:predict", "Predict a part of the split, or image files."),
    "submit": ("cli.ltrain.use:submit", "Write the lab's submission files for several test lists."),
    "preview-augment": ("cli.ltrain.look:preview_augment", "Draw what training sees: cells after random augmentation."),
    "batchnorm-demo": (
        "cli.ltrain.look:batchnorm_demo",
        "Reproduce the second report's BatchNorm mystery, and its cure.",
    ),
    "completion": ("cli.options:completion", "Print the script that completes commands and names in a shell."),
}


@click.group(
    "ltrain", cls=MainGroup, lazy_commands=_COMMANDS, default_command="train", subcommand_metavar="[COMMAND] [ARGS]..."
)
@click.version_option(__version__, prog_name="ltrain")
def main() -> None:
    """Train ResNets on caches of cell images, evaluate them and predict.

    Options without a command are those of `train`: see `ltrain train --help`. `ltrain` alone trains on ./cache.

    \b
    Examples:
      ltrain --cache cache --size 128 --model resnet18 --epochs 10
      ltrain kfold --folds 5 --size 128 --epochs 20
      ltrain evaluate runs/resnet18-128px-subject-seed0 --part valid
      ltrain predict runs/resnet18-128px-subject-seed0 new-cells --out predictions.csv
    """
