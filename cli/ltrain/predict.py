"""``ltrain predict``: what a trained network says of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from cli.ltrain.devices import choose_device
from cli.ltrain.run_data import open_run_cache
from cli.options import json_option, root_option
from cli.output import print_json, print_note
from leukemia_data.errors import ImageError, RunError, SourceError
from leukemia_data.file_stream import stream_files
from leukemia_data.recipe import Recipe
from leukemia_data.record import Record
from leukemia_data.source import list_images
from leukemia_data.splits import parse_split
from leukemia_models.checkpoint import Checkpoint, load_checkpoint
from leukemia_models.judge import SplitCache, predict_part
from leukemia_models.predict import predict_probabilities
from leukemia_models.predictions import Predictions, predictions_table, write_predictions, write_submission
from leukemia_models.run_files import RunFolder, load_config, load_split


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--part",
    type=click.Choice(["train", "valid", "test", "all"]),
    default="test",
    show_default=True,
    help="Without IMAGES: what to predict.",
)
@click.option("--checkpoint", "which", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), help="Where the run's cache is now, if it was moved."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV to write.  [default: RUN/predictions.csv]"
)
@click.option(
    "--submission", type=click.Path(path_type=Path, dir_okay=False), help="Also write the lab's ID,label file here."
)
@root_option
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--device", default="auto", show_default=True)
@json_option
def command(
    run: Path,
    images: tuple[Path, ...],
    part: str,
    which: str,
    cache: Path | None,
    out: Path | None,
    submission: Path | None,
    root: Path | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Predict a part of RUN's split, or IMAGES: files, folders and CSV tables with a column Path.

    Image files are put through the recipe that the network was trained with; it travels in the checkpoint. A CSV table
    keeps its order and its Path strings, so that --submission is ready to hand in.

    \b
    Examples:
      ltrain predict runs/r18 --part test
      ltrain predict runs/r18 new-cells one-cell.bmp --out predictions.csv
      ltrain predict runs/r18 resnet_18_test.csv --root lab3 --submission 0816000_resnet18.csv
    """
    written = out if out is not None else run / "predictions.csv"
    for path in (written, submission):
        if path is not None and run.is_dir() and not path.resolve().parent.is_dir():
            raise SourceError(f"cannot write {path}: its folder does not exist")
    folder = RunFolder(run)
    checkpoint = load_checkpoint(folder.checkpoint(which))
    target = choose_device(device)
    failures: list[str] = []
    if images:
        records = list_images(images, root=root)
        predictions = _predict_files(checkpoint, records, target, batch_size, failures)
        ids, subjects = [record.record_id for record in records], [record.subject for record in records]
        splits = [record.split for record in records]
    else:
        config = load_config(folder)
        opened = open_run_cache(config, cache)
        data = SplitCache(opened, parse_split(config.split), load_split(folder, opened))
        predictions = predict_part(checkpoint, data, part, device=target, batch_size=batch_size)
        ids, subjects, splits = opened.table.id_texts, opened.table.subject_texts, [part] * len(opened)
    table = predictions_table(predictions, ids, subjects, splits, checkpoint.info.classes)
    write_predictions(written, table)
    if submission is not None:
        write_submission(submission, table)
    counts = {name: int((table["prediction"] == label).sum()) for label, name in enumerate(checkpoint.info.classes)}
    if as_json:
        print_json({"out": str(written), "num_predicted": len(table), "predicted": counts, "failed": failures})
    else:
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        click.echo(f"{len(table):,} images predicted ({said}): {written}")
    if failures:
        raise RunError(
            f"{len(failures)} of {len(failures) + len(table)} images could not be used and have no prediction "
            "(listed above)"
        )


def _predict_files(
    checkpoint: Checkpoint, records: Sequence[Record], device: torch.device, batch_size: int, failures: list[str]
) -> Predictions:
    def on_failure(record: Record, error: ImageError) -> None:
        failures.append(record.record_id)
        print_note(f"{record.path}: {error}")

    model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
    batches = stream_files(
        records,
        Recipe.from_dict(checkpoint.info.recipe),
        checkpoint.info.size_px,
        batch_size=batch_size,
        num_threads=os.cpu_count() or 1,
        on_failure=on_failure,
    )
    try:
        return predict_probabilities(model, batches, checkpoint.info.normalization, device)
    except RunError as error:
        if len(failures) == len(records):
            raise RunError("none of the images could be used (listed above)") from error
        raise
