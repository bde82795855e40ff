"""``ltrain kfold``: cross-validation."""

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
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Train a fresh network for every fold, judge it on the subjects held out, and pool their predictions.

    Everything starts anew in each fold: weights, optimizer, order, statistics. Nothing is chosen by the held-out
    images: the last epoch is judged, or with --inner-valid the best one on subjects set apart for that. All samples of
    a person, and of people who share identical images, are in one fold. --resume goes on where a killed run stopped.

    \b
    Examples:
      ltrain kfold --folds 5 --size 128 --epochs 20 --out runs/five
      ltrain kfold --folds official --plan report-b-ranger21 --inner-valid --allow-leak
      ltrain kfold --folds loso --size 128 --epochs 10 --tta d4
      ltrain kfold --out runs/five --resume
    """
    given = given_options(context, options)
    require_plan_alone(given, STAGE_OPTIONS, options["plan"])
    # torch takes seconds to load: not for --help.
    from cli.ltrain.kfold_work import cross_validate, inner_share

    inner_valid = inner_share(options.pop("inner_valid"), options.pop("valid_from_train"))

    cross_validate(make_request(given, {**options, "split": "", "is_kfold": True}), inner_valid=inner_valid)
