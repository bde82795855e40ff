"""``ltrain batchnorm-demo``: why a network may answer one class in eval mode, and the cure."""

from __future__ import annotations

from pathlib import Path

import click

from cli.locations import LocalPath
from cli.options import json_option, seed_type


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
def command(out: Path, epochs: int, lr: float, seed: int, as_json: bool) -> None:
    """Train a ResNet-18 on generated cells for a minute, and judge every epoch's weights four ways.

    (i) in eval mode at once; (ii) in training mode, as the second report validated; (iii) in eval mode after that, as
    it tested; (iv) in eval mode with BatchNorm statistics estimated anew on clean training images, which is what
    `--batchnorm auto` offers every run. No data set is needed.

    \b
    Examples:
      ltrain batchnorm-demo --out batchnorm
      ltrain batchnorm-demo --out batchnorm --epochs 10 --seed 1 --json
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.batchnorm_work import batchnorm_demo

    batchnorm_demo(out, epochs=epochs, lr=lr, seed=seed, as_json=as_json)
