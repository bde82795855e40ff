"""Predictions of image files as tables, and submissions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leukemia_data.errors import ImageError, RunError, UsageError, listed
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.near_looks import LOOK_VALUES
from leukemia_data.records.record import UNKNOWN_LABEL, ImagePlace, Record
from leukemia_data.scanning.frame_notes import FRAMES_DETAIL
from leukemia_data.scanning.scan import frame_difference
from leukemia_data.sources.classes import is_other_class, others_text, own_label
from leukemia_data.sources.image_rows import ImageRow, first_of_each_file
from leukemia_data.splitting.seen_samples import NOTHING_SEEN, SeenSamples, near_seen
from leukemia_data.streams.dataset import FileStream, FrameIdentity
from leukemia_models.evaluation.predictions import (
    Predictions,
    predictions_table,
    probability_column,
    table_classes,
)
from leukemia_models.runs.evaluate_part import Predictor
from leukemia_models.runs.run_folder import is_of_run
from leukemia_models.runs.run_split import KnownSamples, SplitRow, learnt_text


@dataclass(frozen=True)
class FilePredictions:
    """Predictions of rows, each image predicted once however often it is listed.

    Attributes
    ----------
    rows
        All of them, in their order.
    predictions
        Of the rows whose image could be used: ``indices_N`` counts `rows`. Labels are unknown.
    digests
        By row index: the digest of the decoded frame, 32 hexadecimal digits.
    looks_N64 : ndarray of shape (N, 64), int8
        Looks of all rows; zeros where the image could not be used.
    problems
        By row index: why the row's image could not be used.
    """

    rows: Sequence[ImageRow]
    predictions: Predictions
    digests: Mapping[int, str]
    looks_N64: NDArray[np.int8]
    problems: Mapping[int, str]


def predict_files(rows: Sequence[ImageRow], predictor: Predictor) -> FilePredictions:
    """Predict the images of rows; one that cannot be used has no prediction, and its reason.

    Parameters
    ----------
    rows
        From :func:`~leukemia_data.sources.image_rows.list_image_rows`.
    predictor
        The recipe and the size of its checkpoint prepare the images. Its console gets a line for each file that cannot
        be used as soon as it is known; first a warning of frames unlike those of training.

    Raises
    ------
    RunError
        If no image can be used, or the network's output is not finite.
    """
    files = first_of_each_file(rows)
    records = [row.record for row in files]
    info, console, batch_size = predictor.checkpoint.info, predictor.console, predictor.batch_size
    recipe = Recipe.from_dict(info.recipe)
    difference = frame_difference(info.details.get(FRAMES_DETAIL), records, recipe, info.size_px)
    if difference is not None:
        console.warn(difference)
    reasons: dict[int, str] = {}
    digests: dict[int, str] = {}
    looks_F64 = np.zeros((len(files), LOOK_VALUES), np.int8)
    index_of = {id(record): number for number, record in enumerate(records)}

    def on_failure(record: Record, error: ImageError) -> None:
        reasons[index_of[id(record)]] = str(error)
        console.note(f"{record.path}: {error}")

    def on_frame(number: int, identity: FrameIdentity) -> None:
        digests[number] = identity.digest.hex()
        looks_F64[number] = identity.look

    batches = FileStream(
        records,
        recipe,
        info.size_px,
        batch_size=batch_size,
        num_threads=os.cpu_count() or 1,
        on_failure=on_failure,
        on_frame=on_frame,
    )
    try:
        found = predictor.predict(batches, -(-len(records) // batch_size), "predict")
    except RunError as error:
        if len(reasons) == len(records):
            raise RunError(f"none of the {len(records)} images could be used (listed above)") from error
        raise
    file_of = {row.key: number for number, row in enumerate(files)}
    return _of_rows(rows, [file_of[row.key] for row in rows], found, digests, looks_F64, reasons)


def _of_rows(
    rows: Sequence[ImageRow],
    files: Sequence[int],
    found: Predictions,
    digests: Mapping[int, str],
    looks_F64: NDArray[np.int8],
    reasons: Mapping[int, str],
) -> FilePredictions:
    """Spread what is known of the files over the rows that name them."""
    place_of = {int(file): place for place, file in enumerate(found.indices_N)}
    usable = [(row, place_of[file]) for row, file in enumerate(files) if file in place_of]
    indices_N = np.array([row for row, _ in usable], np.int64)
    labels_N = np.full(len(usable), UNKNOWN_LABEL, np.int64)
    spread = Predictions(indices_N, labels_N, found.log_probabilities_NK[[place for _, place in usable]])
    return FilePredictions(
        rows,
        spread,
        {row: digests[file] for row, file in enumerate(files) if file in digests},
        looks_F64[np.asarray(files, np.intp)],
        {row: reasons[file] for row, file in enumerate(files) if file in reasons},
    )


def submission_problem(found: FilePredictions) -> str:
    """Say why the rows cannot be submitted, with the lines of images that could not be used; empty where they can."""
    rows, problems = found.rows, found.problems
    if not problems:
        return ""
    num_files = len({rows[index].key for index in problems})
    places = listed((f"{rows[index].place_text} ({problems[index]})" for index in problems), separator="; ")
    return f"no submission was written: {num_files} of the images cannot be used: {places}"


def require_not_replaced(outputs: Iterable[Path | None], inputs: Iterable[ImagePlace]) -> None:
    """Refuse to write over what is read, one file over another, or over what a run or an evaluation keeps.

    Raises
    ------
    UsageError
        With the file's name.
    """
    taken = {place.resolve() for place in inputs if isinstance(place, Path)}
    for path in outputs:
        if path is None:
            continue
        if path.resolve() in taken:
            raise UsageError(f"{path} would replace a list, an image or another output: choose another name")
        if is_of_run(path.resolve()):
            raise UsageError(f"{path} is one of a run's own files or results: choose another name")
        taken.add(path.resolve())


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
        As from :func:`~leukemia_models.evaluation.predictions.predictions_table`: ``label`` and ``split`` are those of
        the run's split where the run knows the image by its pixels; ``split`` is empty elsewhere. Where an image could
        not be used, a last column ``problem`` says why, and the row has neither prediction nor probabilities.
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
        :func:`~leukemia_data.sources.classes.own_label`); another one is told in a caution, and no label.
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


def _label(sample: SplitRow | None, told: int) -> int:
    return told if sample is None or sample.label == UNKNOWN_LABEL else sample.label


def _subject(row: ImageRow, sample: SplitRow | None) -> str:
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
    rows: Sequence[ImageRow], classes: Sequence[str], samples: Sequence[SplitRow | None], told: Sequence[int]
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


def _label_cautions(samples: Sequence[SplitRow | None], told: Sequence[int]) -> list[str]:
    num_denied = sum(
        sample is not None and UNKNOWN_LABEL not in (own, sample.label) and own != sample.label
        for sample, own in zip(samples, told, strict=True)
    )
    return (
        [f"{num_denied:,} images have another class by name than in the run's split, which counts"]
        if num_denied
        else []
    )
