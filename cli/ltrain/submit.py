"""``ltrain submit``: the files that the lab's grading program wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.locations import LocalPath
from cli.ltrain.judging_options import final_checkpoint_option, tta_average_option, tta_option
from cli.ltrain.run_options import batch_size_option, device_option
from cli.options import allow_outside_option, json_option, root_option


@click.command("submit")
@click.argument("run", type=LocalPath(path_type=Path, file_okay=False))
@click.argument("lists", nargs=-1, required=True, type=LocalPath(path_type=Path, dir_okay=False))
@click.option(
    "--out-dir",
    type=LocalPath(path_type=Path, file_okay=False),
    default=Path("submissions"),
    show_default=True,
    help="Folder for the submissions, each named like its list.",
)
@root_option
@allow_outside_option
@final_checkpoint_option
@tta_option
@tta_average_option
@batch_size_option
@device_option
@json_option
def command(**options: Any) -> None:  # noqa: ANN401 - click hands over what is declared above
    """Write a submission for each of LISTS, CSV tables with a column Path, from what RUN's network says.

    A submission has the header ID,label and repeats its list row by row: the same Path strings, unchanged, in the same
    order, repeated ones too. An image that is listed several times is predicted once, however its path is written.
    Nothing is written if a list names an image that is not there or cannot be used.

    \b
    Examples:
      ltrain submit runs/r18 resnet_18_test.csv --root lab3
      ltrain submit runs/r50 resnet_50_test.csv --root lab3 --tta d4 --out-dir hand-in
      ltrain submit runs/r152 resnet_18_test.csv resnet_50_test.csv resnet_152_test.csv --root lab3
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.submit_work import SubmitRequest, submit

    submit(SubmitRequest(**options))
