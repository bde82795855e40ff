"""``ltrain batchnorm-demo``: why a network may answer one class in eval mode, and the cure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE
from cli.locations import LocalPath
from cli.options import json_option, seed_type
from cli.output import format_table, print_json, print_text

if TYPE_CHECKING:
    from leukemia_models.experiments.batchnorm_experiment import BatchNormExperiment
    from leukemia_models.training.batchnorm_report import BatchNormScores


@click.command("batchnorm-demo")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    required=True,
    help="Folder for batchnorm.csv, .json, .png and .pdf; made where it is missing.",
)
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(1, 100))
@click.option("--lr", default=0.01, show_default=True, type=click.FloatRange(0, min_open=True), help="Rate of AdamW.")
@click.option("--seed", default=0, show_default=True, type=seed_type, help="Of cells, weights, order and augmentation.")
@json_option
def batchnorm_demo(out: Path, epochs: int, lr: float, seed: int, as_json: bool) -> None:
    """Train a ResNet-18 on generated cells for a minute, and evaluate every epoch's weights four ways.

    (i) in eval mode at once; (ii) in training mode, as the second report validated; (iii) in eval mode after that, as
    it tested; (iv) in eval mode with BatchNorm statistics estimated anew on clean training images, which is what
    `--batchnorm auto` offers every run. No data set is needed.

    \b
    Examples:
      ltrain batchnorm-demo --out batchnorm
      ltrain batchnorm-demo --out batchnorm --epochs 10 --seed 1 --json
    """
    # torch takes seconds to load: not for --help.
    from leukemia_models.experiments.batchnorm_experiment import run_experiment

    found = run_experiment(out, epochs=epochs, lr=lr, seed=seed, console=CONSOLE)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(_text(found))


def _text(experiment: BatchNormExperiment) -> str:
    from leukemia_models.experiments.four_ways import WAY_TITLES

    share = f"{experiment.share_of_labels:.3f} of the labels"
    rows = [[str(scores.epoch), *(_cell(getattr(scores, way)) for way in WAY_TITLES)] for scores in experiment.epochs]
    return "\n".join(
        [
            f"Validation accuracy, share of class 1 among the predictions ({share}):",
            "",
            format_table(["epoch", *WAY_TITLES.values()], rows),
            "",
            "!: nearly all predictions are one class. (ii) and (iii) have seen validation images; (iv) has not.",
            f"Look at {experiment.out / 'batchnorm.png'}",
        ]
    )


def _cell(scores: BatchNormScores) -> str:
    mark = "!" if scores.one_class_warning else " "
    return f"{scores.accuracy:.3f}  {scores.share_positive:.2f}{mark}"
