"""``ltrain evaluate``, ``predict`` and ``submit``: what a trained run is used for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.console import CONSOLE, print_json, print_text
from cli.options import (
    LocalPath,
    LocationType,
    SourceType,
    allow_outside_option,
    json_option,
    local_copies_gb_option,
    local_copies_option,
    reading_options,
    root_option,
)
from leukemia_data.errors import UsageError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.stores.url import Location
from leukemia_models.runs.run_folder import last_run

if TYPE_CHECKING:
    from leukemia_models.evaluation.settings import Tta
    from leukemia_models.runs.open_run import OpenRun

_Command = TypeVar("_Command", bound=Callable[..., Any])


_run_argument = click.argument("run", type=LocalPath(path_type=Path, file_okay=False))
_images_argument = click.argument("images", nargs=-1, type=SourceType())
_cache_option = click.option(
    "--cache", type=LocationType(), help="Where the run's cache is now, if it was moved: a folder or a URL."
)
_checkpoint_option = click.option(
    "--checkpoint",
    "which",
    type=click.Choice(["final", "best", "last"]),
    default="final",
    show_default=True,
    help="final: the weights the run was evaluated with, and the BatchNorm statistics chosen for them.",
)
_tta_option = click.option(
    "--tta",
    help="Mean answer to several views of an image: none, d4 (8 flips and quarter turns) or rotations:N.  "
    "[default: as the run was evaluated]",
)
_tta_average_option = click.option(
    "--tta-average", type=click.Choice(["logits", "probabilities"]), help="Mean of what.  [default: logits]"
)
_excel_option = click.option(
    "--excel",
    "for_excel",
    is_flag=True,
    help="Begin the CSV files with a byte order mark, by which Excel knows UTF-8 (submissions never have one).",
)
_batch_size_option = click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
_device_option = click.option("--device", default="auto", show_default=True)


def _part_option(what: str) -> Callable[[_Command], _Command]:
    return click.option(
        "--part",
        type=click.Choice(["train", "valid", "test", "all"]),
        help=f"Without IMAGES: what to {what}.  [default: test]",
    )


@click.command("evaluate")
@_run_argument
@_images_argument
@_part_option("evaluate")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder for the results.  [default: RUN/PART, or RUN/outside-NAME for IMAGES]",
)
@_checkpoint_option
@_tta_option
@_tta_average_option
@click.option(
    "--batchnorm",
    type=click.Choice(["auto", "running", "reestimated"]),
    help="Statistics of BatchNorm: those of training, new ones from clean training images, or auto, whichever does "
    "better on the validation part.  [default: as the run was evaluated]",
)
@click.option("--draws", default=2000, show_default=True, type=click.IntRange(100), help="Resamples of an interval.")
@_excel_option
@root_option
@allow_outside_option
@reading_options
@_cache_option
@local_copies_option
@local_copies_gb_option
@_batch_size_option
@_device_option
@json_option
def evaluate(
    run: Path,
    images: tuple[ImagePlace, ...],
    part: str | None,
    out: Path | None,
    which: str,
    tta: str | None,
    tta_average: str | None,
    batchnorm: str | None,
    draws: int,
    for_excel: bool,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    cache: Location | None,
    local_copies: Path | None,
    local_copies_gb: float | None,
    batch_size: int,
    device: str,
    as_json: bool,
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
    _refuse_part_with_images(part, images)
    if not images:
        _refuse_options_of_images(reading, root, allow_outside)
    opened = _open_run(run, images, device, batch_size, cache, local_copies, local_copies_gb)
    from leukemia_models.evaluation.resampling import BootstrapSettings
    from leukemia_models.reports.results import results_text
    from leukemia_models.runs.evaluate_run import evaluate_images, evaluate_run

    how: dict[str, Any] = {
        "checkpoint": which,
        "tta": tta,
        "tta_average": tta_average,
        "batchnorm": batchnorm,
        "out": out,
        "bootstrap": BootstrapSettings(num_draws=draws),
        "for_excel": for_excel,
    }
    if images:
        found = evaluate_images(opened, images, root=root, allow_outside=allow_outside, reading=reading, **how)
    else:
        found = evaluate_run(opened, part or "test", **how)
    if as_json:
        print_json(found.to_dict())
    else:
        if found.note is not None:
            CONSOLE.note(f"note: {found.note}")
        print_text(results_text({found.part: found.results}))
        print_text(f"Written to {found.out}")
    found.require_complete()


@click.command("predict")
@_run_argument
@_images_argument
@_part_option("predict")
@_checkpoint_option
@_tta_option
@_tta_average_option
@_cache_option
@local_copies_option
@local_copies_gb_option
@click.option(
    "--out", type=LocalPath(path_type=Path, dir_okay=False), help="CSV to write.  [default: RUN/predictions.csv]"
)
@click.option(
    "--submission", type=LocalPath(path_type=Path, dir_okay=False), help="Also write the lab's ID,label file here."
)
@_excel_option
@root_option
@allow_outside_option
@_batch_size_option
@_device_option
@json_option
def predict(
    run: Path,
    images: tuple[ImagePlace, ...],
    part: str | None,
    which: str,
    tta: str | None,
    tta_average: str | None,
    cache: Location | None,
    local_copies: Path | None,
    local_copies_gb: float | None,
    out: Path | None,
    submission: Path | None,
    for_excel: bool,
    root: ImagePlace | None,
    allow_outside: bool,
    batch_size: int,
    device: str,
    as_json: bool,
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
    _refuse_part_with_images(part, images)
    opened = _open_run(run, images, device, batch_size, cache, local_copies, local_copies_gb)
    from leukemia_models.runs.predict_run import predict_images, predict_part

    how: dict[str, Any] = {
        "checkpoint": which,
        "tta": tta,
        "tta_average": tta_average,
        "out": out if out is not None else run / "predictions.csv",
        "submission": submission,
        "for_excel": for_excel,
    }
    if images:
        found = predict_images(opened, images, root=root, allow_outside=allow_outside, **how)
    else:
        found = predict_part(opened, part or "test", **how)
    for text in found.cautions:
        CONSOLE.note(f"caution: {text}")
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(f"{_predicted_text(found.num_predicted_per_class, found.num_predicted, found.tta)}: {found.out}")
    found.require_complete()


@click.command("submit")
@_run_argument
@click.argument("lists", nargs=-1, required=True, type=SourceType())
@click.option(
    "--out-dir",
    type=LocalPath(path_type=Path, file_okay=False),
    default=Path("submissions"),
    show_default=True,
    help="Folder for the submissions, each named like its list.",
)
@root_option
@allow_outside_option
@_checkpoint_option
@_tta_option
@_tta_average_option
@_batch_size_option
@_device_option
@json_option
def submit(
    run: Path,
    lists: tuple[ImagePlace, ...],
    out_dir: Path,
    root: ImagePlace | None,
    allow_outside: bool,
    which: str,
    tta: str | None,
    tta_average: str | None,
    batch_size: int,
    device: str,
    as_json: bool,
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
    opened = _open_run(run, lists, device, batch_size)
    from leukemia_models.runs.predict_run import write_submissions

    written = write_submissions(
        opened,
        lists,
        out_dir,
        root=root,
        allow_outside=allow_outside,
        checkpoint=which,
        tta=tta,
        tta_average=tta_average,
    )
    if as_json:
        print_json(written.to_dict())
        return
    print_text(_predicted_text(written.num_predicted_per_class, written.num_predicted, written.tta))
    for each in written.submissions:
        print_text(f"{each.num_rows:,} rows in the order of {each.table.name}: {each.out}")


def _open_run(
    run: Path,
    sources: Sequence[ImagePlace],
    device: str,
    batch_size: int,
    cache: Location | None = None,
    copies_dir: Path | None = None,
    copies_gb: float | None = None,
) -> OpenRun:
    # A wrong path is told before torch is loaded, which takes seconds.
    last_run(run)
    for place in sources:
        if isinstance(place, Path) and not place.exists():
            raise UsageError(f"{place} does not exist: name a file or a folder")
    from leukemia_data.caches.opening import LocalCopiesChoice
    from leukemia_models.runs.open_run import open_run

    copies = LocalCopiesChoice(copies_dir, copies_gb)
    return open_run(run, cache=cache, copies=copies, device=device, batch_size=batch_size, console=CONSOLE)


def _refuse_part_with_images(part: str | None, images: tuple[ImagePlace, ...]) -> None:
    if images and part is not None:
        raise UsageError(f"--part {part} is a part of the run's split: leave it out, or the IMAGES")


def _refuse_options_of_images(reading: ReadingOptions, root: ImagePlace | None, allow_outside: bool) -> None:
    given = [
        *([reading.command_text] if reading != ReadingOptions() else []),
        *(["--root"] if root is not None else []),
        *(["--allow-outside"] if allow_outside else []),
    ]
    if given:
        raise UsageError(f"{' '.join(given)} says how IMAGES are read, and none are given")


def _predicted_text(num_per_class: Mapping[str, int], num_predicted: int, tta: Tta) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in num_per_class.items())
    shown = f", each shown as {tta.description}" if tta.num_views > 1 else ""
    return f"{num_predicted:,} images predicted ({counts}{shown})"
