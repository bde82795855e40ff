"""What a trained network says of image files, put through the recipe that it was trained with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from leukemia_data.errors import ImageError, RunError
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.near_looks import LOOK_VALUES
from leukemia_data.samples.record import UNKNOWN_LABEL, Record
from leukemia_data.scanning.frame_difference import FRAMES_DETAIL, frame_difference
from leukemia_data.sources.image_rows import ImageRow, first_of_each_file
from leukemia_data.streams.file_stream import FileStream, FrameIdentity
from leukemia_models.inference.predict import predict_probabilities
from leukemia_models.inference.tta import Tta
from leukemia_models.judging.predictions import Predictions
from leukemia_models.learning.checkpoint import Checkpoint
from leukemia_models.runs.judge import Watch, unwatched


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
        By row number: the digest of the decoded frame, 32 hexadecimal digits.
    looks_N64 : ndarray of shape (N, 64), int8
        Looks of all rows; zeros where the image could not be used.
    problems
        By row number: why the row's image could not be used.
    """

    rows: Sequence[ImageRow]
    predictions: Predictions
    digests: Mapping[int, str]
    looks_N64: NDArray[np.int8]
    problems: Mapping[int, str]


def predict_files(
    rows: Sequence[ImageRow],
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    batch_size: int,
    tta: Tta,
    watch: Watch = unwatched,
    tell: Callable[[str], None] | None = None,
) -> FilePredictions:
    """Predict the images of rows; one that cannot be used has no prediction, and its reason.

    Parameters
    ----------
    rows
        From :func:`~leukemia_data.sources.image_rows.list_image_rows`.
    checkpoint
        Its recipe and size prepare the images.
    watch
        Shows how far the batches are.
    tell
        Told of each file that cannot be used as soon as it is known, and first of frames unlike those of training.

    Raises
    ------
    RunError
        If no image can be used, or the network's output is not finite.
    """
    files = first_of_each_file(rows)
    records = [row.record for row in files]
    recipe = Recipe.from_dict(checkpoint.info.recipe)
    difference = frame_difference(checkpoint.info.details.get(FRAMES_DETAIL), records, recipe, checkpoint.info.size_px)
    if difference is not None and tell is not None:
        tell(f"warning: {difference}")
    reasons: dict[int, str] = {}
    digests: dict[int, str] = {}
    looks_F64 = np.zeros((len(files), LOOK_VALUES), np.int8)
    number_of = {id(record): number for number, record in enumerate(records)}

    def on_failure(record: Record, error: ImageError) -> None:
        reasons[number_of[id(record)]] = str(error)
        if tell is not None:
            tell(f"{record.path}: {error}")

    def on_frame(number: int, identity: FrameIdentity) -> None:
        digests[number] = identity.digest.hex()
        looks_F64[number] = identity.look

    batches = FileStream(
        records,
        recipe,
        checkpoint.info.size_px,
        batch_size=batch_size,
        num_threads=os.cpu_count() or 1,
        on_failure=on_failure,
        on_frame=on_frame,
    )
    model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
    shown = watch("predict", -(-len(records) // batch_size), batches)
    try:
        found = predict_probabilities(model, shown, checkpoint.info.normalization, device, tta=tta)
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
