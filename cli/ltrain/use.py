"""``ltrain evaluate``, ``predict`` and ``submit``: what a trained run is used for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE, print_result
from cli.options import (
    FILE,
    FOLDER,
    LOCATION,
    SOURCE,
    Decorator,
    OptionValue,
    as_one,
    json_option,
    local_copies_options,
    reading_options,
    table_options,
    with_options,
)
from leukemia_data.errors import UsageError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_models.runs.run_folder import last_run

if TYPE_CHECKING:
    from leukemia_models.runs.evaluate_run import RunEvaluation
    from leukemia_models.runs.open_run import OpenRun
    from leukemia_models.runs.predict_run import RunPredictions, Submissions

_run_argument = click.argument("run", type=FOLDER)
_images_argument = click.argument("images", nargs=-1, type=SOURCE)
_network_options = with_options(
    click.option(
        "--checkpoint",
        type=click.Choice(["final", "best", "last"]),
        default="final",
        help="final: the weights the run was evaluated with, and the BatchNorm statistics chosen for them.",
    ),
    click.option(
        "--tta",
        help="Mean answer to several views of an image: none, d4 (8 flips and quarter turns) or rotations:N.  "
        "[default: as the run was evaluated]",
    ),
    click.option(
        "--tta-average", type=click.Choice(["logits", "probabilities"]), help="Mean of what.  [default: logits]"
    ),
)
_excel_option = click.option(
    "--excel",
    "for_excel",
    is_flag=True,
    help="Begin the CSV files with a byte order mark, by which Excel knows UTF-8 (submissions never have one).",
)
_device_options = with_options(
    click.option("--batch-size", default=64, type=click.IntRange(1)), click.option("--device", default="auto")
)
_opening_options = as_one(
    "opening",
    dict,
    ("cache", "copies", "batch_size", "device"),
    click.option("--cache", type=LOCATION, help="Where the run's cache is now, if it was moved: a folder or a URL."),
    local_copies_options,
    _device_options,
)
"""The command gets arguments of ``open_run`` as ``opening``."""


def _part_option(what: str) -> Decorator:
    return click.option(
        "--part",
        type=click.Choice(["train", "valid", "test", "all"]),
        help=f"Without IMAGES: what to {what}.  [default: test]",
    )


@click.command("evaluate")
@_run_argument
@_images_argument
@_part_option("evaluate")
@click.option("--out", type=FOLDER, help="Folder for the results.  [default: RUN/PART, or RUN/outside-NAME for IMAGES]")
@_network_options
@click.option(
    "--batchnorm",
    type=click.Choice(["auto", "running", "reestimated"]),
    help="Statistics of BatchNorm: those of training, new ones from clean training images, or auto, whichever does "
    "better on the validation part.  [default: as the run was evaluated]",
)
@click.option("--draws", default=2000, type=click.IntRange(100), help="Resamples of an interval.")
@_excel_option
@table_options
@reading_options
@_opening_options
@json_option
def evaluate(
    run: Path,
    images: tuple[ImagePlace, ...],
    part: str | None,
    draws: int,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    opening: dict[str, OptionValue],
    as_json: bool,
    **how: OptionValue,
) -> None:
    """Evaluate RUN on one part of the split it was trained with, or on IMAGES from outside: folders and CSV tables.

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
    if not images:
        _refuse_options_of_images(reading, root, allow_outside)
    opened = _open_run(run, images, part, **opening)
    from leukemia_models.evaluation.resampling import BootstrapSettings
    from leukemia_models.runs.evaluate_run import evaluate_images, evaluate_run

    how["bootstrap"] = BootstrapSettings(num_draws=draws)
    if images:
        found = evaluate_images(opened, images, root=root, allow_outside=allow_outside, reading=reading, **how)
    else:
        found = evaluate_run(opened, part or "test", **how)
    print_result(found, _evaluation_lines(found), as_json=as_json)
    found.require_complete()


def _evaluation_lines(found: RunEvaluation) -> Iterator[str]:
    from leukemia_models.reports.results import results_text

    if found.note is not None:
        CONSOLE.note(f"note: {found.note}")
    yield results_text({found.part: found.results})
    yield f"Written to {found.out}"


@click.command("predict")
@_run_argument
@_images_argument
@_part_option("predict")
@_network_options
@click.option("--out", type=FILE, help="CSV to write.  [default: RUN/predictions.csv]")
@click.option("--submission", type=FILE, help="Also write the lab's ID,label file here.")
@_excel_option
@table_options
@_opening_options
@json_option
def predict(
    run: Path,
    images: tuple[ImagePlace, ...],
    part: str | None,
    root: ImagePlace | None,
    allow_outside: bool,
    opening: dict[str, OptionValue],
    out: Path | None,
    as_json: bool,
    **how: OptionValue,
) -> None:
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
    opened = _open_run(run, images, part, **opening)
    from leukemia_models.runs.predict_run import predict_images, predict_part

    how["out"] = out if out is not None else run / "predictions.csv"
    if images:
        found = predict_images(opened, images, root=root, allow_outside=allow_outside, **how)
    else:
        found = predict_part(opened, part or "test", **how)
    for text in found.cautions:
        CONSOLE.note(f"caution: {text}")
    print_result(found, [f"{_predicted_text(found)}: {found.out}"], as_json=as_json)
    found.require_complete()


@click.command("submit")
@_run_argument
@click.argument("lists", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--out-dir", type=FOLDER, default=Path("submissions"), help="Folder for the submissions, each named like its list."
)
@table_options
@_network_options
@_device_options
@json_option
def submit(
    run: Path,
    lists: tuple[ImagePlace, ...],
    out_dir: Path,
    batch_size: int,
    device: str,
    as_json: bool,
    **how: OptionValue,
) -> None:
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
    opened = _open_run(run, lists, batch_size=batch_size, device=device)
    from leukemia_models.runs.predict_run import write_submissions

    written = write_submissions(opened, lists, out_dir, **how)
    lines = [
        _predicted_text(written),
        *(f"{each.num_rows:,} rows in the order of {each.table.name}: {each.out}" for each in written.submissions),
    ]
    print_result(written, lines, as_json=as_json)


def _open_run(run: Path, sources: Sequence[ImagePlace], part: str | None = None, **how: OptionValue) -> OpenRun:
    """Open a run; wrong arguments are refused before torch is loaded, which takes seconds."""
    if sources and part is not None:
        raise UsageError(f"--part {part} is a part of the run's split: leave it out, or the IMAGES")
    last_run(run)
    for place in sources:
        if isinstance(place, Path) and not place.exists():
            raise UsageError(f"{place} does not exist: name a file or a folder")
    from leukemia_models.runs.open_run import open_run

    return open_run(run, console=CONSOLE, **how)


def _refuse_options_of_images(reading: ReadingOptions, root: ImagePlace | None, allow_outside: bool) -> None:
    given = [
        *([reading.command_text] if reading != ReadingOptions() else []),
        *(["--root"] if root is not None else []),
        *(["--allow-outside"] if allow_outside else []),
    ]
    if given:
        raise UsageError(f"{' '.join(given)} says how IMAGES are read, and none are given")


def _predicted_text(found: RunPredictions | Submissions) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in found.num_predicted_per_class.items())
    shown = f", each shown as {found.tta.description}" if found.tta.num_views > 1 else ""
    return f"{found.num_predicted:,} images predicted ({counts}{shown})"
