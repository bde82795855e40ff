"""A trained network on its device, with all that decides how it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.errors import RunError
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.splitting.splits import split_indices
from leukemia_data.streams.batch import share_size
from leukemia_data.streams.loader import BatchStream
from leukemia_data.streams.residency import MAPPED
from leukemia_models.devices.normalization import Batch
from leukemia_models.devices.precision import is_out_of_memory
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.evaluation.settings import NO_TTA, Tta
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.batchnorm_statistics import BatchNormStatistics, reestimate_batchnorm
from leukemia_models.training.checkpoint import Checkpoint


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictor:
    """A network on its device.

    Attributes
    ----------
    checkpoint
        What the network was trained on and how it is evaluated; its weights are on the CPU.
    model
        The same weights on `device`, in eval mode only while it predicts.
    batch_size
        Images at a time.
    tta
        The views of each image that the network is shown.
    console
        Shows progress.
    """

    checkpoint: Checkpoint
    model: nn.Module
    device: torch.device
    batch_size: int
    tta: Tta
    console: Console

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        batch_size: int,
        tta: Tta | None = None,
        console: Console = NULL_CONSOLE,
    ) -> Predictor:
        """Build the network of a checkpoint on a device; `tta` is by default what the checkpoint is evaluated with.

        Raises
        ------
        RunError
            If the weights are not those of the network that the checkpoint names.
        """
        model = checkpoint.build_model().to(memory_format=torch.channels_last).to(device)
        views = evaluation_tta(checkpoint.info.judging) if tta is None else tta
        return cls(checkpoint=checkpoint, model=model, device=device, batch_size=batch_size, tta=views, console=console)

    def predict(self, batches: Iterable[Batch], num_batches: int, purpose: str) -> Predictions:
        """Predict the images of batches, in their order.

        Raises
        ------
        RunError
            If no batch came, or the network's output is not finite.
        """
        shown = tracked(batches, self.console, num_batches, purpose, "batch")
        normalization = self.checkpoint.info.normalization
        return predict_probabilities(self.model, shown, normalization, self.device, tta=self.tta)

    def predict_samples(self, data: SplitCache, indices_N: NDArray[np.int64], purpose: str) -> Predictions:
        """Predict samples of a cache by their indices, in that order.

        Raises
        ------
        RunError
            If memory runs out, or the network's output is not finite.
        """
        try:
            with self._stream(data, indices_N, self.batch_size) as stream:
                return self.predict(stream.epoch(0), len(stream), purpose)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"memory ran out on {self.device} with {self.batch_size} images at a time: end what else uses it, or "
                "evaluate and predict with fewer at a time (`--batch-size`)"
            ) from error

    def predict_part(self, data: SplitCache, part: str) -> Predictions:
        """Predict every sample of a part, in the order of the indices.

        Raises
        ------
        UsageError
            If the part is unknown or holds no image.
        RunError
            As :meth:`predict_samples`.
        """
        return self.predict_samples(data, data.indices(part), f"evaluate {part}")

    def reestimate_batchnorm(self, data: SplitCache, indices_N: NDArray[np.int64]) -> BatchNormStatistics:
        """Measure BatchNorm statistics on samples as they are cached."""
        info = self.checkpoint.info
        # What reaches a layer depends on the batches of those before it: as large as in training.
        whole = int(info.details.get("batch_size", self.batch_size))
        batch_size = min(share_size(whole, info.settings.accumulate), len(indices_N))
        with self._stream(data, indices_N, batch_size) as stream:
            batches = tracked(stream.epoch(0), self.console, len(stream), "re-estimate BatchNorm", "batch")
            return reestimate_batchnorm(self.model, batches, info.normalization, self.device)

    def _stream(self, data: SplitCache, indices_N: NDArray[np.int64], batch_size: int) -> BatchStream:
        return BatchStream(data.cache, indices_N, batch_size=batch_size, device=self.device, residency=MAPPED)


def evaluation_tta(judging: Mapping[str, Any] | None) -> Tta:
    """Return the views of an image that a checkpoint's ``judging`` asks for."""
    return Tta.from_dict(judging["tta"]) if judging and "tta" in judging else NO_TTA


def labelled_indices(data: SplitCache, part: str) -> NDArray[np.int64]:
    """Return the indices of a part's samples that have a label; may be empty."""
    indices = split_indices(data.codes, part)
    labelled: NDArray[np.int64] = indices[data.cache.table.labels[indices] != UNKNOWN_LABEL]
    return labelled
