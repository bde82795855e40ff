"""Predictions of image files as a table, with what the run's own split says of the images that it knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.sources.image_rows import ImageRow
from leukemia_data.sources.own_labels import is_other_class, others_text, own_label
from leukemia_data.splitting.seen_samples import NOTHING_SEEN, SeenSamples, near_seen
from leukemia_models.judging.predictions import (
    Predictions,
    predictions_table,
    probability_column,
    table_classes,
)
from leukemia_models.runs.file_predictions import FilePredictions
from leukemia_models.runs.known_samples import KnownSample, KnownSamples, learnt_text

PROBLEM = "problem"
_CANNOT_RECOGNISE = (
    "the run has no pixel digests of its images and its cache is not there: whether images are among those that it was "
    "trained on is not known, and split is empty (--cache says where the cache is)"
)


@dataclass(frozen=True)
class FileTable:
    """A table of predictions with one row for each row that was listed.

    Attributes
    ----------
    table
        As from :func:`~leukemia_models.judging.predictions.predictions_table`: ``label`` and ``split`` are those of the
        run's split where the run knows the image by its pixels; ``split`` is empty elsewhere. Where an image could not
        be used, a last column ``problem`` says why, and the row has neither prediction nor probabilities.
    num_known
        How many files are images of each part of the run, however often they are listed.
    cautions
        What a reader must know of labels and parts, in sentences.
    """

    table: pd.DataFrame
    num_known: Mapping[str, int]
    cautions: tuple[str, ...]


def table_of_files(
    found: FilePredictions,
    known: KnownSamples,
    classes: Sequence[str],
    positive: str,
    labels: Sequence[int] | None = None,
    seen: SeenSamples = NOTHING_SEEN,
) -> FileTable:
    """Join predictions of files with what is known of them.

    Parameters
    ----------
    found
        The predictions.
    known
        The samples of the run.
    classes
        The run's classes. A class that a file's place tells counts where it is one of them by name (see
        :func:`~leukemia_data.sources.own_labels.own_label`); another one is told in a caution, and no label.
    positive
        The run's positive class.
    labels
        Positions in `classes`, one a row, to be taken instead of those that the run and the files tell.
    seen
        What the weights were trained on and chosen by: near-identical copies of that are told in a caution.
    """
    samples = [known.find(found.digests.get(number, "")) for number in range(len(found.rows))]
    told = [own_label(row.class_name, row.record.record_id, classes) for row in found.rows]
    chosen = [_label(sample, own) for sample, own in zip(samples, told, strict=True)] if labels is None else labels
    splits = [sample.split if sample is not None else "" for sample in samples]
    table = predictions_table(
        _of_all_rows(found, chosen, len(classes)),
        [row.record.record_id for row in found.rows],
        [_subject(row, sample) for row, sample in zip(found.rows, samples, strict=True)],
        splits,
        classes,
        positive,
    )
    split_of_file = {row.key: split for row, split in zip(found.rows, splits, strict=True)}
    num_known = {split: count for split, count in Counter(split_of_file.values()).items() if split}
    cautions = [*_part_cautions(num_known, known, len(split_of_file))]
    cautions += _near_cautions(found, splits, seen)
    if labels is None:
        cautions += [*_class_cautions(found.rows, classes, samples, told), *_label_cautions(samples, told)]
    return FileTable(_with_problems(table, found.problems), num_known, tuple(cautions))


def predicted_counts(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """Return how many rows of a table are predicted to be of each class."""
    return {name: int((table["prediction"] == name).sum()) for name in classes}


def _label(sample: KnownSample | None, told: int) -> int:
    return told if sample is None or sample.label == UNKNOWN_LABEL else sample.label


def _subject(row: ImageRow, sample: KnownSample | None) -> str:
    return (sample.subject if sample is not None else "") or row.record.subject


def _of_all_rows(found: FilePredictions, labels: Sequence[int], num_classes: int) -> Predictions:
    """Predictions of all rows, even where there is none."""
    log_probabilities_NK = np.full((len(found.rows), num_classes), -np.log(num_classes))
    log_probabilities_NK[found.predictions.indices_N] = found.predictions.log_probabilities_NK
    return Predictions(np.arange(len(found.rows)), np.array(labels, np.int64), log_probabilities_NK)


def _with_problems(table: pd.DataFrame, problems: Mapping[int, str]) -> pd.DataFrame:
    """The table without what its unusable rows cannot have, and with the reasons."""
    if not problems:
        return table
    is_without = table.index.isin(list(problems))
    blanked = {name: table[name].mask(is_without) for name in map(probability_column, table_classes(table))}
    reasons = pd.Series([problems.get(number, "") for number in range(len(table))], dtype=object)
    named = table["prediction"].mask(is_without, "")
    return table.assign(**{"prediction": named, **blanked, PROBLEM: reasons})


def _part_cautions(num_known: Mapping[str, int], known: KnownSamples, num_files: int) -> list[str]:
    if not known.is_complete:
        return [_CANNOT_RECOGNISE]
    learnt = learnt_text(num_known)
    return [f"of {num_files:,} images, {learnt}"] if learnt else []


def _near_cautions(found: FilePredictions, splits: Sequence[str], seen: SeenSamples) -> list[str]:
    """Say how many files are altered copies; those that the run knows by their pixels are said already."""
    is_near = near_seen(seen, found.looks_N64)
    near = {row.key for row, split, near in zip(found.rows, splits, is_near, strict=True) if near and not split}
    return (
        [f"{len(near):,} images are near-identical to images that the network was trained on or chosen by"]
        if near
        else []
    )


def _class_cautions(
    rows: Sequence[ImageRow], classes: Sequence[str], samples: Sequence[KnownSample | None], told: Sequence[int]
) -> list[str]:
    """Say which classes the files are of that the run has not got."""
    others = Counter(
        row.class_name
        for row, sample, label in zip(rows, samples, told, strict=True)
        if sample is None
        and label == UNKNOWN_LABEL
        and row.class_name
        and is_other_class(row.class_name, row.record.record_id)
    )
    return [others_text(others, classes)] if others else []


def _label_cautions(samples: Sequence[KnownSample | None], told: Sequence[int]) -> list[str]:
    num_denied = sum(
        sample is not None and UNKNOWN_LABEL not in (own, sample.label) and own != sample.label
        for sample, own in zip(samples, told, strict=True)
    )
    return (
        [f"{num_denied:,} images have another class by name than in the run's split, which counts"]
        if num_denied
        else []
    )
