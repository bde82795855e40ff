"""The part of ``ltrain submit`` that needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pandas as pd

from cli.console import CONSOLE
from cli.output import print_json, print_text
from leukemia_data.errors import UsageError
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.image_rows import ImageRow, list_table_rows
from leukemia_models.devices.precision import choose_device
from leukemia_models.evaluation.predict import Tta
from leukemia_models.runs.open_run import chosen_tta, open_checkpoint
from leukemia_models.runs.predict_files import (
    predict_files,
    predicted_counts,
    require_all_predicted,
    table_of_files,
    write_submissions,
)
from leukemia_models.runs.run_data import KnownSamples
from leukemia_models.runs.run_folder import last_run
from leukemia_models.training.checkpoint import Checkpoint

Lists = Mapping[Path, Sequence[ImageRow]]
"""Rows by the table they stand in."""


@dataclass(frozen=True, kw_only=True)
class SubmitRequest:
    """The command line."""

    run: Path
    lists: tuple[Path, ...]
    out_dir: Path
    root: ImagePlace | None
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
        table: list_table_rows(table, request.root, allow_outside=request.allow_outside, need_files=True)
        for table in request.lists
    }
    checkpoint = open_checkpoint(last_run(request.run), request.which, CONSOLE)
    tta = chosen_tta(checkpoint.info, request.tta, request.tta_average)
    tables, counts = _predicted(request, lists, checkpoint, tta)
    write_submissions({out_paths[path]: table for path, table in tables.items()}, checkpoint.info.positive)
    _tell(request, tables, out_paths, counts, checkpoint, tta)


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


def _predicted(
    request: SubmitRequest, lists: Lists, checkpoint: Checkpoint, tta: Tta
) -> tuple[dict[Path, pd.DataFrame], dict[str, int]]:
    """The predictions of each list, row by row, and how many images each class has.

    Raises
    ------
    SourceError
        If an image cannot be used.
    """
    rows = [row for listed_rows in lists.values() for row in listed_rows]
    found = predict_files(
        rows,
        checkpoint,
        device=choose_device(request.device),
        batch_size=request.batch_size,
        tta=tta,
        console=CONSOLE,
    )
    require_all_predicted(rows, found.problems)
    classes = checkpoint.info.classes
    table = table_of_files(found, KnownSamples(()), classes, checkpoint.info.positive).table
    ends = list(accumulate(map(len, lists.values())))
    tables = {path: table[end - len(lists[path]) : end] for path, end in zip(lists, ends, strict=True)}
    is_first = ~pd.Series([row.key for row in rows]).duplicated()
    return tables, predicted_counts(table[is_first], classes)


def _tell(
    request: SubmitRequest,
    tables: Mapping[Path, pd.DataFrame],
    out_paths: Mapping[Path, Path],
    counts: Mapping[str, int],
    checkpoint: Checkpoint,
    tta: Tta,
) -> None:
    num_predicted = sum(counts.values())
    if request.as_json:
        written = [
            {"list": str(table), "out": str(out_paths[table]), "num_rows": len(rows)} for table, rows in tables.items()
        ]
        print_json(
            {
                "checkpoint": str(checkpoint.path),
                "tta": tta.to_dict(),
                "num_predicted": num_predicted,
                "predicted": dict(counts),
                "submissions": written,
            }
        )
        return
    said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    shown = f", each shown as {tta.description}" if tta.num_views > 1 else ""
    print_text(f"{num_predicted:,} images predicted ({said}{shown})")
    for table, rows in tables.items():
        print_text(f"{len(rows):,} rows in the order of {table.name}: {out_paths[table]}")
