"""``ltrain evaluate``: judge a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.locations import LocalPath
from cli.ltrain.judging_options import final_checkpoint_option, tta_average_option, tta_option
from cli.ltrain.run_options import PART_NAMES, batch_size_option, device_option, moved_cache_option
from cli.options import json_option
from cli.stage_options import stage_dir_option, stage_gb_option


@click.command("evaluate")
@click.argument("run", type=LocalPath(path_type=Path, file_okay=False))
@click.option(
    "--part",
    type=PART_NAMES,
    default="test",
    show_default=True,
    help="What to judge.",
)
@final_checkpoint_option
@tta_option
@tta_average_option
@click.option(
    "--batchnorm",
    type=click.Choice(["auto", "running", "reestimated"]),
    help="Statistics of BatchNorm: those of training, new ones from clean training images, or auto, whichever does "
    "better on the validation part.  [default: as the run was judged]",
)
@click.option("--draws", default=2000, show_default=True, type=click.IntRange(100), help="Resamples of an interval.")
@moved_cache_option
@stage_dir_option
@stage_gb_option
@batch_size_option
@device_option
@json_option
def command(**options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Judge RUN on one part of the split it was trained with, per image and per subject, in eval mode.

    Writes summary.md, results.json, predictions.csv, subjects.csv and figures into RUN/PART. Another checkpoint, --tta
    or --batchnorm gives that folder a longer name; temperature and threshold are then fitted anew on the validation
    part.

    \b
    Examples:
      ltrain evaluate runs/resnet18-128px-subject-seed0
      ltrain evaluate runs/r50 --part valid --checkpoint last --json
      ltrain evaluate runs/r50 --tta d4 --batchnorm reestimated
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.evaluate_work import EvaluateRequest, evaluate

    evaluate(EvaluateRequest(**options))
