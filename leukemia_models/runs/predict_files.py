"""Predict image files, and join the predictions with what the run knows of the images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError, RunError, UsageError, listed
from leukemia_data.lazy_imports import pd
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
    """Predictions of rows that name images, each image predicted once.

    Attributes
    ----------
    predictions
        Of the rows with a usable image; ``indices_N`` are indices of `rows`. Labels are unknown.
    digests
        By row index: the digest of the decoded frame, 32 hexadecimal digits.
    looks_N64 : ndarray of shape (N, 64), int8
        Looks of all rows; zeros for unusable images.
    problems
        By row index: why the image is unusable.
    """

    rows: Sequence[ImageRow]
    predictions: Predictions
    digests: Mapping[int, str]
    looks_N64: NDArray[np.int8]
    problems: Mapping[int, str]


def predict_files(rows: Sequence[ImageRow], predictor: Predictor) -> FilePredictions:
    """Predict the images of rows, preprocessed by the recipe of the checkpoint.

    Parameters
    ----------
    rows
        From :func:`~leukemia_data.sources.image_rows.list_image_rows`.
    predictor
        Its console gets a warning of frames unlike those of training, and a line for each unusable file.

    Raises
    ------
    RunError
        If no image can be used, or the network's output is not finite.
    """
    unique = first_of_each_file(rows)
    records = [row.record for row in unique]
    info, console, batch_size = predictor.checkpoint.info, predictor.console, predictor.batch_size
    recipe = Recipe.from_dict(info.recipe)
    difference = frame_difference(info.details.get(FRAMES_DETAIL), records, recipe, info.size_px)
    if difference is not None:
        console.warn(difference)
    reasons: dict[int, str] = {}
    digests: dict[int, str] = {}
    looks_F64 = np.zeros((len(unique), LOOK_VALUES), np.int8)
    index_of = {id(record): index for index, record in enumerate(records)}

    def on_failure(record: Record, error: ImageError) -> None:
        reasons[index_of[id(record)]] = str(error)
        console.note(f"{record.path}: {error}")

    def on_frame(index: int, identity: FrameIdentity) -> None:
        digests[index] = identity.digest.hex()
        looks_F64[index] = identity.look

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
    file_of = {row.key: index for index, row in enumerate(unique)}
    files = [file_of[row.key] for row in rows]
    return FilePredictions(
        rows,
        _repeated(found, files),
        {row: digests[file] for row, file in enumerate(files) if file in digests},
        looks_F64[np.asarray(files, np.intp)],
        {row: reasons[file] for row, file in enumerate(files) if file in reasons},
    )


def _repeated(found: Predictions, files: Sequence[int]) -> Predictions:
    """Return the predictions of files for all rows that name them."""
    place_of = {int(file): place for place, file in enumerate(found.indices_N)}
    usable = [(row, place_of[file]) for row, file in enumerate(files) if file in place_of]
    indices_N = np.array([row for row, _ in usable], np.int64)
    labels_N = np.full(len(usable), UNKNOWN_LABEL, np.int64)
    return Predictions(indices_N, labels_N, found.log_probabilities_NK[[place for _, place in usable]])


def submission_problem(found: FilePredictions) -> str:
    """Return why the rows cannot be submitted, with the lines of unusable images; empty if they can."""
    rows, problems = found.rows, found.problems
    if not problems:
        return ""
    num_files = len({rows[index].key for index in problems})
    places = listed((f"{rows[index].place_text} ({problems[index]})" for index in problems), separator="; ")
    return f"no submission was written: {num_files} of the images cannot be used: {places}"


def require_not_replaced(outputs: Iterable[Path | None], inputs: Iterable[ImagePlace]) -> None:
    """Raise a UsageError if outputs would replace inputs, each other, or files of a run or an evaluation."""
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
"""Column of a table of files: why the image is unusable."""


@dataclass(frozen=True)
class FileTable:
    """A table of predictions with one row for each listed row.

    Attributes
    ----------
    table
        As from :func:`~leukemia_models.evaluation.predictions.predictions_table`. ``label`` and ``split`` of images
        with the pixels of a sample are those of the sample; ``split`` is empty otherwise. With unusable images there is
        a last column ``problem``, and their rows have neither prediction nor probabilities.
    num_known
        Number of files that are images of each part of the run.
    cautions
        Sentences about labels and parts.
    """

    table: pd.DataFrame
    num_known: Mapping[str, int]
    cautions: tuple[str, ...]


def table_of_files(
    found: FilePredictions,
    known: KnownSamples,
    classes: Sequence[str],
    positive: str | None,
    labels: Sequence[int] | None = None,
    seen: SeenSamples = NOTHING_SEEN,
) -> FileTable:
    """Join predictions of files with what the run knows of them.

    Parameters
    ----------
    known
        The samples of the run.
    classes
        The run's classes. Other classes of files (see :func:`~leukemia_data.sources.classes.own_label`) are named in a
        caution.
    positive
        The run's positive class; None of more than two.
    labels
        Per row: position in `classes`, instead of the label of the run's split or of the file's place.
    seen
        Training data of the weights; near-identical copies are counted in a caution.
    """
    rows = found.rows
    samples = [known.find(found.digests.get(index, "")) for index in range(len(rows))]
    own_labels = [own_label(row.class_name, row.record.record_id, classes) for row in rows]
    splits, subjects, chosen = [], [], []
    for row, sample, label in zip(rows, samples, own_labels, strict=True):
        splits.append(sample.split if sample is not None else "")
        subjects.append((sample.subject if sample is not None else "") or row.record.subject)
        chosen.append(label if sample is None or sample.label == UNKNOWN_LABEL else sample.label)
    predictions = _of_all_rows(found, chosen if labels is None else labels, len(classes))
    ids = [row.record.record_id for row in rows]
    table = predictions_table(predictions, ids, subjects, splits, classes, positive)
    split_of_file = {row.key: split for row, split in zip(rows, splits, strict=True)}
    num_known = {split: count for split, count in Counter(split_of_file.values()).items() if split}
    cautions = [*_seen_cautions(num_known, known, len(split_of_file)), *_near_cautions(found, splits, seen)]
    if labels is None:
        cautions += _label_cautions(rows, classes, samples, own_labels)
    return FileTable(_with_problems(table, found.problems), num_known, tuple(cautions))


def predicted_counts(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """Return the number of rows with each predicted class."""
    return {name: int((table["prediction"] == name).sum()) for name in classes}


def _of_all_rows(found: FilePredictions, labels: Sequence[int], num_classes: int) -> Predictions:
    """Return predictions of all rows; those of unusable images are uniform."""
    log_probabilities_NK = np.full((len(found.rows), num_classes), -np.log(num_classes))
    log_probabilities_NK[found.predictions.indices_N] = found.predictions.log_probabilities_NK
    return Predictions(np.arange(len(found.rows)), np.array(labels, np.int64), log_probabilities_NK)


def _with_problems(table: pd.DataFrame, problems: Mapping[int, str]) -> pd.DataFrame:
    """Blank predictions and probabilities of unusable images, and add the reasons."""
    if not problems:
        return table
    is_without = table.index.isin(list(problems))
    blanked = {name: table[name].mask(is_without) for name in map(probability_column, table_classes(table))}
    reasons = pd.Series([problems.get(index, "") for index in range(len(table))], dtype=object)
    named = table["prediction"].mask(is_without, "")
    return table.assign(**{"prediction": named, **blanked, PROBLEM: reasons})


def _seen_cautions(num_known: Mapping[str, int], known: KnownSamples, num_files: int) -> Iterator[str]:
    if not known.is_complete:
        yield (
            "the run has no pixel digests of its images and its cache is missing: it is unknown whether images are "
            "among those that it was trained on, and split is empty (name the cache with --cache)"
        )
    elif learnt := learnt_text(num_known):
        yield f"of {num_files:,} images, {learnt}"


def _near_cautions(found: FilePredictions, splits: Sequence[str], seen: SeenSamples) -> Iterator[str]:
    is_near = near_seen(seen, found.looks_N64)
    # Images in a split have identical pixels, and are counted elsewhere.
    near = {row.key for row, split, near in zip(found.rows, splits, is_near, strict=True) if near and not split}
    if near:
        yield f"{len(near):,} images are near-identical to images that the network was trained on or chosen by"


def _label_cautions(
    rows: Sequence[ImageRow], classes: Sequence[str], samples: Sequence[SplitRow | None], own_labels: Sequence[int]
) -> Iterator[str]:
    others: Counter[str] = Counter()
    num_other_label = 0
    for row, sample, label in zip(rows, samples, own_labels, strict=True):
        name, is_unknown = row.class_name, label == UNKNOWN_LABEL
        if sample is not None:
            num_other_label += UNKNOWN_LABEL not in (label, sample.label) and label != sample.label
        elif is_unknown and name and is_other_class(name, row.record.record_id):
            others[name] += 1
    if others:
        yield others_text(others, classes)
    if num_other_label:
        yield f"{num_other_label:,} images have another class by name than in the run's split, which counts"
