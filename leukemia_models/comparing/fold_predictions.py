"""What one fold of a cross-validation held out, and what its network says of it: a run's folder in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from leukemia_data.errors import RunError
from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_data.splitting.split_spec import SplitSpec, parse_split
from leukemia_models.judging.predictions import UNKNOWN_CLASS, read_predictions
from leukemia_models.reports.report import read_results
from leukemia_models.runs.run_files import RunFolder, last_run
from leukemia_models.runs.split_file import UNUSED_NAME, read_split

HELD_OUT_PART = "test"


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldPredictions:
    """What one fold's network says of the samples it was not shown.

    Parameters
    ----------
    name : str
        For tables, such as ``fold-1``.
    split : SplitSpec
        What was held out.
    leaks : LeakCheck
        What stood on both sides of it.
    used_ids, held_out_ids : frozenset of str
        Labelled samples in any part of the split, and those in its test part.
    table : pandas.DataFrame
        Predictions of the test part, from :func:`~leukemia_models.judging.predictions.read_predictions`.
    model_name : str
        Name of the network.
    classes : tuple of two str
        The negative and the positive class.
    settings, judging : mapping
        What the run was told, and how it was judged, as JSON values.
    epoch : int or None
        The epoch whose weights were judged.
    warnings : tuple of str
        What the fold's results say against its numbers, beside what its split tells.
    """

    name: str
    split: SplitSpec
    leaks: LeakCheck
    used_ids: frozenset[str]
    held_out_ids: frozenset[str]
    table: pd.DataFrame
    model_name: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    judging: Mapping[str, Any]
    epoch: int | None
    warnings: tuple[str, ...] = ()


def read_fold(path: Path) -> FoldPredictions:
    """Read what a fold's run held out and said of it.

    Parameters
    ----------
    path
        The run's folder, or that of a plan, whose last stage counts. Its part ``test`` must have been judged.

    Raises
    ------
    RunError
        If a file is missing or damaged, or the predictions are not those of the part that was held out.
    """
    folder = last_run(path)
    judged = folder.part(HELD_OUT_PART)
    results = read_results(judged / "results.json")
    used_ids, held_out_ids = _read_split(folder)
    try:
        fold = FoldPredictions(
            name=path.name,
            split=parse_split(results["split"]["kind"]),
            leaks=_leak_check(results["split"]["leaks"]),
            used_ids=used_ids,
            held_out_ids=held_out_ids,
            table=read_predictions(judged / "predictions.csv", results["classes"]),
            model_name=results["model_name"],
            classes=tuple(results["classes"]),
            settings=results["settings"],
            judging=dict(results.get("judging", {})),
            epoch=results["epoch"],
            warnings=tuple(map(str, results.get("warnings", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{judged / 'results.json'} is damaged ({error!r}): judge the run again") from error
    _require_held_out(fold, judged)
    return fold


def _leak_check(counts: Mapping[str, Any]) -> LeakCheck:
    values = dict(counts)
    subjects_from = values.pop("subjects_from", "")
    if not all(isinstance(count, int) and count >= 0 for count in values.values()) or not isinstance(
        subjects_from, str
    ):
        raise ValueError(f"leaks are counts, not {dict(counts)}")
    return LeakCheck(**values, subjects_from=subjects_from)


def _read_split(folder: RunFolder) -> tuple[frozenset[str], frozenset[str]]:
    """Ids of the labelled samples in use, and of those held out."""
    rows = read_split(folder.split)
    used = {each: row.split for each, row in rows.items() if row.split != UNUSED_NAME and row.label != UNKNOWN_LABEL}
    return frozenset(used), frozenset(each for each, split in used.items() if split == HELD_OUT_PART)


def _require_held_out(fold: FoldPredictions, judged: Path) -> None:
    predicted = Counter(fold.table.loc[fold.table["label"] != UNKNOWN_CLASS, "id"])
    if predicted != Counter(fold.held_out_ids):
        raise RunError(
            f"{judged / 'predictions.csv'} holds {predicted.total():,} labelled images, which are not the "
            f"{len(fold.held_out_ids):,} that the fold's split.csv holds out: judge the run again, "
            f"with `ltrain evaluate --part {HELD_OUT_PART}`"
        )
