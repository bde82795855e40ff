"""The training loss: logits and labels of one share in, the sum of its losses and what the mean divides it by out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from leukemia_models.inference.ranks import Ranks
from leukemia_models.learning.run_state import TrainSettings


class LossSum(NamedTuple):
    """A loss that is yet to be divided, so that shares and ranks can be added up."""

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
        """Return the sum over a share's rows.

        A label that is no class counts as the nearest one, and is for the caller to find: on CUDA it would end the
        whole process here.
        """
        labels_B = labels_B.clamp(0, self._num_classes - 1)
        loss_sum = functional.cross_entropy(
            logits_BK.float(), labels_B, self._weights_K, reduction="sum", label_smoothing=self._smoothing
        )
        return LossSum(loss_sum, None if self._weights_K is None else self._weights_K[labels_B].sum())

    def total_weight(self, labels_of_shares: Sequence[Tensor], ranks: Ranks) -> Tensor | None:
        """Return the sum of all labels' weights: of this rank's shares, and of the other ranks' too.

        None where there are no class weights: then the mean divides by the number of samples.
        """
        if self._weights_K is None:
            return None
        weight = self._weights_K[torch.cat(list(labels_of_shares)).clamp(0, self._num_classes - 1)].sum()
        # Only with several ranks the host must wait for the device and for the others before the gradient.
        return weight if ranks.world_size == 1 else ranks.sum(weight.cpu())

    def mean(self, sums: LossSum, num_samples: int, total_weight: Tensor | None, ranks: Ranks) -> Tensor:
        """Return this share's part of the mean loss over the `num_samples` rows of all shares and ranks.

        The gradients of a rank's shares will be added up and those of the ranks averaged, so each part counts as often
        as there are ranks.
        """
        if total_weight is None:
            return sums.loss_sum * (ranks.world_size / num_samples)
        if ranks.world_size == 1:
            return sums.loss_sum / total_weight
        return sums.loss_sum * (ranks.world_size / float(total_weight))
