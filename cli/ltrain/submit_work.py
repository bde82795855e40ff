"""The part of ``ltrain submit`` that needs torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cli.ltrain.devices import choose_device
from cli.ltrain.file_predictions import predict_files
from cli.ltrain.run_checkpoint import chosen_tta, open_checkpoint
from cli.output import print_json, print_text
from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.samples.record import Record
from leukemia_data.sources.submission_list import ListedImage, read_submission_list
from leukemia_models.inference.tta import Tta
from leukemia_models.judging.predictions import predicted_classes, write_submission
from leukemia_models.learning.checkpoint import Checkpoint
from leukemia_models.runs.run_files import last_run

Lists = Mapping[Path, Sequence[ListedImage]]
"""Rows by the table they stand in."""


@dataclass(frozen=True, kw_only=True)
class SubmitRequest:
    """The command line."""

    run: Path
    lists: tuple[Path, ...]
    out_dir: Path
    root: Path | None
    allow_outside: bool
    which: str
    tta: str | None
    tta_average: str | None
    batch_size: int
    device: str
    as_json: bool


def submit(request: SubmitRequest) -> None:
    """Predict each image of the lists once, and write a submission for each list."""
    out_paths = _out_paths(request.lists, request.out_dir)
    lists = {
        table: read_submission_list(
            table,
            request.root if request.root is not None else table.parent,
            allow_outside=request.allow_outside,
        )
        for table in request.lists
    }
    checkpoint = open_checkpoint(last_run(request.run), request.which)
    tta = chosen_tta(checkpoint.info, request.tta, request.tta_average)
    labels = _predicted_labels(request, lists, checkpoint, tta)
    request.out_dir.mkdir(parents=True, exist_ok=True)
    for table, images in lists.items():
        ids = pd.Series([image.text for image in images], dtype=object)
        frame = pd.DataFrame({"id": ids, "prediction": [labels[image.key] for image in images]})
        write_submission(out_paths[table], frame, checkpoint.info.positive)
    _tell(request, lists, out_paths, labels, checkpoint, tta)


def _out_paths(tables: Sequence[Path], out_dir: Path) -> dict[Path, Path]:
    """Where each list's submission goes; never onto a list or onto another list's."""
    paths = {table: out_dir / table.name for table in tables}
    if len(paths) < len(tables) or len({path.name.lower() for path in paths.values()}) < len(paths):
        raise UsageError("two lists have the same name, and their submissions would too: rename one, or call twice")
    given = {table.resolve() for table in tables}
    for path in paths.values():
        if path.resolve() in given:
            raise UsageError(f"the submission {path} would replace a list: choose another --out-dir")
    return paths


def _predicted_labels(request: SubmitRequest, lists: Lists, checkpoint: Checkpoint, tta: Tta) -> dict[str, str]:
    """The class predicted for each image, by its key.

    Raises
    ------
    SourceError
        If an image cannot be used.
    """
    records = {image.key: Record(image.text, image.path) for images in lists.values() for image in images}
    keys = list(records)
    found = predict_files(
        list(records.values()),
        checkpoint,
        device=choose_device(request.device),
        batch_size=request.batch_size,
        tta=tta,
    )
    if found.failures:
        raise SourceError(_unusable(lists, {key for key, record in records.items() if record in found.failures}))
    answers = predicted_classes(found.predictions, checkpoint.info.classes, checkpoint.info.positive)
    return {keys[index]: answer for index, answer in zip(found.predictions.indices_N, answers, strict=True)}


def _unusable(lists: Lists, unusable_keys: Collection[str]) -> str:
    rows = [
        f"{table.name} line {image.line}: {image.text}"
        for table, images in lists.items()
        for image in images
        if image.key in unusable_keys
    ]
    return (
        f"nothing was written: {len(unusable_keys)} of the images cannot be used (reasons above): "
        f"{listed(rows, separator='; ')}"
    )


def _tell(
    request: SubmitRequest,
    lists: Lists,
    out_paths: Mapping[Path, Path],
    labels: Mapping[str, str],
    checkpoint: Checkpoint,
    tta: Tta,
) -> None:
    answers = list(labels.values())
    counts = {name: answers.count(name) for name in checkpoint.info.classes}
    if request.as_json:
        written = [
            {"list": str(table), "out": str(out_paths[table]), "num_rows": len(images)}
            for table, images in lists.items()
        ]
        print_json(
            {
                "checkpoint": str(checkpoint.path),
                "tta": tta.to_dict(),
                "num_predicted": len(labels),
                "predicted": counts,
                "submissions": written,
            }
        )
        return
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    shown = f", each shown as {tta.description}" if tta.num_views > 1 else ""
    print_text(f"{len(labels):,} images predicted ({said}{shown})")
    for table, images in lists.items():
        print_text(f"{len(images):,} rows in the order of {table.name}: {out_paths[table]}")
