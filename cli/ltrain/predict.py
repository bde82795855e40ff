"""``ltrain predict``: what a trained network says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.locations import LocalPath, SourceType
from cli.ltrain.judging_options import excel_option, final_checkpoint_option, tta_average_option, tta_option
from cli.ltrain.run_options import PART_NAMES, batch_size_option, choose_part, device_option, moved_cache_option
from cli.options import allow_outside_option, json_option, root_option
from cli.stage_options import stage_dir_option, stage_gb_option


@click.command("predict")
@click.argument("run", type=LocalPath(path_type=Path, file_okay=False))
@click.argument("images", nargs=-1, type=SourceType())
@click.option(
    "--part",
    type=PART_NAMES,
    help="Without IMAGES: what to predict.  [default: test]",
)
@final_checkpoint_option
@tta_option
@tta_average_option
@moved_cache_option
@stage_dir_option
@stage_gb_option
@click.option(
    "--out", type=LocalPath(path_type=Path, dir_okay=False), help="CSV to write.  [default: RUN/predictions.csv]"
)
@click.option(
    "--submission", type=LocalPath(path_type=Path, dir_okay=False), help="Also write the lab's ID,label file here."
)
@excel_option
@root_option
@allow_outside_option
@batch_size_option
@device_option
@json_option
def command(**options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Predict a part of RUN's split, or IMAGES: files, folders and CSV tables with a column Path.

    Image files are put through the recipe that the network was trained with; it travels in the checkpoint. Each row of
    a CSV table is a row of what is written, in the same order with the same Path string; an image that is listed twice
    is predicted once and written twice. If an image cannot be used, its row says why, and no submission is written.
    `ltrain submit` writes submissions of several lists at once.

    Label and split are those of the run's split where the run knows an image by its pixels, so that images it was
    trained on are seen as such.

    \b
    Examples:
      ltrain predict runs/r18 --part test
      ltrain predict runs/r18 new-cells one-cell.bmp --tta d4 --out predictions.csv
      ltrain predict runs/r18 resnet_18_test.csv --root lab3 --submission 0816000_resnet18.csv
    """
    choose_part(options)
    # torch takes seconds to load: not for --help.
    from cli.ltrain.predict_work import PredictRequest, predict

    predict(PredictRequest(**options))
