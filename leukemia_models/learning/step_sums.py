"""What a step found on one rank: numbers that come from the device without making it wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leukemia_models.learning.loss import LossSum


class StepSums(NamedTuple):
    """What one step, or one share of it, found on one rank."""

    loss_sum: float
    weight_sum: float  # what the mean divides by: the samples, or their class weights
    lowest_label: int
    highest_label: int
    scale: float  # of the gradient, by a scaler for float16; 1 without one
    num_correct: Tensor  # stays on the device: reading it at every step would stall a GPU


def added_up(shares: Sequence[StepSums]) -> StepSums:
    """Return what a step found from what its shares did."""
    if len(shares) == 1:
        return shares[0]
    return StepSums(
        loss_sum=sum(share.loss_sum for share in shares),
        weight_sum=sum(share.weight_sum for share in shares),
        lowest_label=min(share.lowest_label for share in shares),
        highest_label=max(share.highest_label for share in shares),
        scale=shares[0].scale,
        num_correct=torch.stack([share.num_correct for share in shares]).sum(),
    )


class PendingNumbers:
    """A few numbers on their way from the device, waited for only when they are wanted.

    On CUDA the copy runs while the backward pass is queued, so waiting for it never leaves the GPU idle.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = numbers
        if numbers.device.type == "cuda":
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.current_stream(numbers.device).record_event()

    def values(self) -> list[float]:
        """Return the numbers; this waits for the copy."""
        if self._event is not None:
            self._event.synchronize()
        return [float(number) for number in self._host.tolist()]


def numbers_to_tell(sums: LossSum, labels_B: Tensor) -> list[Tensor]:
    """Return loss, lowest and highest label, and the sum of the weights if there are any, on the device."""
    weights = [] if sums.weight_sum is None else [sums.weight_sum]
    return [sums.loss_sum.detach(), *_label_range(labels_B), *weights]


def _label_range(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    if not len(labels_B):
        nothing = torch.zeros((), device=labels_B.device)
        return nothing, nothing
    low, high = labels_B.aminmax()
    return low.float(), high.float()
