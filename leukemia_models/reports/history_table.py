"""``history.csv``: one row an epoch, stamped with the split."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from leukemia_data.files.atomic import write_text
from leukemia_models.learning.history import EPOCH_FIELDS, TrainHistory


def write_history(path: Path, history: TrainHistory, stamp: str) -> None:
    """Write one CSV row per epoch, atomically; undefined numbers are empty, the last column is the split's stamp."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*EPOCH_FIELDS, "split"])
    for record in history.records:
        values = record.to_dict()
        writer.writerow([*(values[name] for name in EPOCH_FIELDS), stamp])
    write_text(path, buffer.getvalue())
