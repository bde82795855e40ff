"""``ltrain evaluate``: judge a run, on a part of its split or on images from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.locations import LocalPath, SourceType
from cli.ltrain.judging_options import excel_option, final_checkpoint_option, tta_average_option, tta_option
from cli.ltrain.run_options import PART_NAMES, batch_size_option, choose_part, device_option, moved_cache_option
from cli.options import allow_outside_option, json_option, root_option
from cli.reading_options import reading_options
from cli.stage_options import stage_dir_option, stage_gb_option
from leukemia_data.errors import UsageError
from leukemia_data.sources.reading_options import ReadingOptions


@click.command("evaluate")
@click.argument("run", type=LocalPath(path_type=Path, file_okay=False))
@click.argument("images", nargs=-1, type=SourceType())
@click.option("--part", type=PART_NAMES, help="Without IMAGES: what to judge.  [default: test]")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: RUN/PART, or RUN/outside-NAME for IMAGES]",
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
@excel_option
@root_option
@allow_outside_option
@reading_options
@moved_cache_option
@stage_dir_option
@stage_gb_option
@batch_size_option
@device_option
@json_option
def command(**options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Judge RUN on one part of the split it was trained with, or on IMAGES from outside: folders and CSV tables.

    Writes summary.md, results.json, predictions.csv, subjects.csv and figures into RUN/PART. Another checkpoint, --tta
    or --batchnorm gives that folder a longer name; temperature and threshold are then fitted anew on the validation
    part.

    IMAGES are read as `ldata scan` reads them, with the same options, and prepared by the recipe of the checkpoint.
    Their classes must be those of the run, by name; --merge and --classes say what others mean. Results go to
    RUN/outside-NAME and say which images and subjects the set shares with the run.

    \b
    Examples:
      ltrain evaluate runs/resnet18-128px-subject-seed0
      ltrain evaluate runs/r50 --part valid --checkpoint last --json
      ltrain evaluate runs/r50 --tta d4 --batchnorm reestimated
      ltrain evaluate runs/r50 other-hospital --subject-from folder --merge "all=Blast" --merge "hem=Healthy"
    """
    choose_part(options)
    if not options["images"]:
        _refuse_options_of_images(options)
    # torch takes seconds to load: not for --help.
    from cli.ltrain.evaluate_work import EvaluateRequest, evaluate

    evaluate(EvaluateRequest(**options))


def _refuse_options_of_images(options: dict[str, Any]) -> None:
    reading: ReadingOptions = options["reading"]
    given = [
        *([reading.command_text] if reading != ReadingOptions() else []),
        *(["--root"] if options["root"] is not None else []),
        *(["--allow-outside"] if options["allow_outside"] else []),
    ]
    if given:
        raise UsageError(f"{' '.join(given)} says how IMAGES are read, and none are given")
