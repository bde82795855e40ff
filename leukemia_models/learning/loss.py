"""The training loss: logits and labels of one rank in, the sum of its losses and what the mean divides it by out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from leukemia_models.inference.ranks import Ranks
from leukemia_models.learning.run_state import TrainSettings


class LossSum(NamedTuple):
    """A loss that is yet to be divided, so that ranks can be added up."""

    loss_sum: Tensor
    weight_sum: Tensor | None  # None: as many as there are rows


class TrainingLoss:
    """Cross-entropy with the settings' label smoothing and class weights, as ``torch.nn.CrossEntropyLoss`` has them.

    With class weights the mean is a weighted one: the weights of the labels are in its denominator too.
    """

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self._smoothing, self._num_classes = settings.label_smoothing, settings.num_classes
        self._weights_K = (
            None if settings.class_weights is None else torch.tensor(settings.class_weights, device=device)
        )

    def sums(self, logits_BK: Tensor, labels_B: Tensor) -> LossSum:
        """Return the sum over a rank's rows.

        A label that is no class counts as the nearest one, and is for the caller to find: on CUDA it would end the
        whole process here.
        """
        labels_B = labels_B.clamp(0, self._num_classes - 1)
        loss_sum = functional.cross_entropy(
            logits_BK.float(), labels_B, self._weights_K, reduction="sum", label_smoothing=self._smoothing
        )
        return LossSum(loss_sum, None if self._weights_K is None else self._weights_K[labels_B].sum())

    def mean(self, sums: LossSum, num_samples: int, ranks: Ranks) -> Tensor:
        """Return this rank's part of the mean loss over the `num_samples` rows of all ranks.

        The ranks' gradients will be averaged, so each part counts as often as there are ranks.
        """
        if sums.weight_sum is None:
            return sums.loss_sum * (ranks.world_size / num_samples)
        if ranks.world_size == 1:
            return sums.loss_sum / sums.weight_sum
        # Only here the host must wait for the device and for the other ranks before the gradient.
        weight = float(ranks.sum(sums.weight_sum.cpu()))
        return sums.loss_sum * (ranks.world_size / weight)
