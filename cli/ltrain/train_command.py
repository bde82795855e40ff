"""``ltrain train``, and ``ltrain`` with options alone: train a network on a cache and evaluate it."""

from __future__ import annotations

from typing import Any

import click

from cli.ltrain.train_request import STAGE_OPTIONS, make_request
from cli.ltrain.training_options import (
    given_options,
    require_plan_alone,
    training_options,
    valid_from_train_option,
)


@click.command("train")
@training_options(
    click.option(
        "--split",
        default="subject",
        show_default=True,
        help="subject, given, fold:K/N, test-fold:K/N, official:K, leave-out:SUBJECT,..., or image (patient-mixed).",
    ),
    valid_from_train_option,
)
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Train a ResNet on a cache and evaluate it. The word `train` may be left out.

    Every result carries its kind of split. The default keeps all cells of a person on one side; expect 0.83 to 0.91
    weighted F1 from it on C-NMC. A split that puts patients on both sides, such as `--split image`, is refused unless
    `--allow-leak` is given, and its numbers say nothing about new patients.

    \b
    Examples:
      ltrain train --cache cache --size 128 --model resnet18 --epochs 10
      ltrain --size 224 --model resnet50 --split fold:1/5 --out runs/r50-fold1
      ltrain --size 128 --augment report-b --sampling class-balanced --optimizer adamw --ema 0.999
      ltrain --plan report-a-resnet50 --epochs-scale 0.02 --out runs/trial
      ltrain --out runs/trial --resume
      torchrun --nproc-per-node 2 --no-python ltrain --size 128 --epochs 10
      ltrain --size 224 --batch-size 256 --accumulate 4 --out runs/job --resume-if-begun
    """
    given = given_options(context, options)
    require_plan_alone(given, STAGE_OPTIONS, options["plan"])
    # torch takes seconds to load, and NumPy a part of one: not for --help.
    from cli.ltrain.train import train
    from leukemia_data.splitting.split_spec import parse_split, with_valid_share

    share = options.pop("valid_from_train")
    if share is not None and not options["resume"]:
        options["split"] = str(with_valid_share(parse_split(options["split"]), share))
    train(make_request(given, options))
