"""What a finished run's network says of image files, put through the recipe that it was trained with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cli.ltrain.judging_progress import watched
from cli.output import print_note
from leukemia_data.errors import ImageError, RunError
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.record import Record
from leukemia_data.scanning.frame_difference import FRAMES_DETAIL, frame_difference
from leukemia_data.streams.file_stream import stream_files
from leukemia_models.inference.predict import predict_probabilities
from leukemia_models.inference.tta import Tta
from leukemia_models.judging.predictions import Predictions
from leukemia_models.learning.checkpoint import Checkpoint


@dataclass(frozen=True)
class FilePredictions:
    """Predictions of the files that could be used (``indices_N`` counts the records), and the records of the rest."""

    predictions: Predictions
    failures: Sequence[Record]


def predict_files(
    records: Sequence[Record], checkpoint: Checkpoint, *, device: torch.device, batch_size: int, tta: Tta
) -> FilePredictions:
    """Predict image files, with a progress bar; a file that cannot be used is told on stderr and left out.

    Raises
    ------
    RunError
        If no file can be used, or the network's output is not finite.
    """
    failures: list[Record] = []
    recipe = Recipe.from_dict(checkpoint.info.recipe)
    difference = frame_difference(checkpoint.info.details.get(FRAMES_DETAIL), records, recipe, checkpoint.info.size_px)
    if difference is not None:
        print_note(f"warning: {difference}")

    def on_failure(record: Record, error: ImageError) -> None:
        failures.append(record)
        print_note(f"{record.path}: {error}")

    model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
    batches = stream_files(
        records,
        recipe,
        checkpoint.info.size_px,
        batch_size=batch_size,
        num_threads=os.cpu_count() or 1,
        on_failure=on_failure,
    )
    shown = watched("predict", -(-len(records) // batch_size), batches)
    try:
        predictions = predict_probabilities(model, shown, checkpoint.info.normalization, device, tta=tta)
    except RunError as error:
        if len(failures) == len(records):
            raise RunError(f"none of the {len(records)} images could be used (listed above)") from error
        raise
    return FilePredictions(predictions, failures)
