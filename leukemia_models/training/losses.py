"""The training loss, the sums of a step, and training that diverges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from leukemia_data.errors import RunError
from leukemia_models.devices.distributed import Ranks
from leukemia_models.training.run_state import TrainSettings


class LossSum(NamedTuple):
    """A loss before the division, so that micro-batches and ranks can be added up."""

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
        """Return the sum over a micro-batch's rows.

        A label that is no class counts as the nearest one, and is for the caller to find: on CUDA it would end the
        whole process here.
        """
        labels_B = labels_B.clamp(0, self._num_classes - 1)
        loss_sum = functional.cross_entropy(
            logits_BK.float(), labels_B, self._weights_K, reduction="sum", label_smoothing=self._smoothing
        )
        return LossSum(loss_sum, None if self._weights_K is None else self._weights_K[labels_B].sum())

    def total_weight(self, labels_of_micro_batches: Sequence[Tensor], ranks: Ranks) -> Tensor | None:
        """Return the sum of all labels' weights, over the micro-batches of all ranks.

        None where there are no class weights: then the mean divides by the number of samples.
        """
        if self._weights_K is None:
            return None
        weight = self._weights_K[torch.cat(list(labels_of_micro_batches)).clamp(0, self._num_classes - 1)].sum()
        # Only with several ranks the host must wait for the device and for the others before the gradient.
        return weight if ranks.world_size == 1 else ranks.sum(weight.cpu())

    def mean(self, sums: LossSum, num_samples: int, total_weight: Tensor | None, ranks: Ranks) -> Tensor:
        """Return this micro-batch's part of the mean loss over the `num_samples` rows of the whole batch.

        Gradients of a rank's micro-batches are added up and those of the ranks averaged, so each part is multiplied by
        the number of ranks.
        """
        if total_weight is None:
            return sums.loss_sum * (ranks.world_size / num_samples)
        if ranks.world_size == 1:
            return sums.loss_sum / total_weight
        return sums.loss_sum * (ranks.world_size / float(total_weight))


MAX_SKIPS = 25
"""So many steps in a row without a usable gradient: the scale has then fallen to a thirty-millionth."""


class DivergenceError(RunError):
    """A training has become non-finite. Checkpoints saved before are finite."""


class SkippedSteps:
    """Counts the steps that a gradient scaler skips, which are those after which its scale has fallen.

    A few are normal: it begins with a scale that is too high, and tries higher ones now and then. Many in a row mean
    that no scale helps.
    """

    def __init__(self) -> None:
        self._scale = 0.0
        self._in_a_row = 0

    def require_few(self, scale: float, epoch: int, step: int) -> None:
        """Take in the scale at the beginning of a step.

        Raises
        ------
        DivergenceError
            If the :data:`MAX_SKIPS` steps before it were all left out.
        """
        self._in_a_row = self._in_a_row + 1 if scale < self._scale else 0
        self._scale = scale
        if self._in_a_row >= MAX_SKIPS:
            raise DivergenceError(
                f"mixed precision left out the {MAX_SKIPS} steps before epoch {epoch}, step {step}: their gradients "
                "were not finite at any scale, and the weights have not moved since"
            )


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with a non-finite value, None if there is none.

    This waits for the device, once where all is well.
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            by_device.setdefault(tensor.device, {})[name] = tensor.detach()
    return next((name for found in map(_non_finite, by_device.values()) for name in found), None)


def _non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the non-finite ones, of tensors on one device."""
    # A sum takes a hundredth of the time of `isfinite`. It may overflow where no value does, and that is looked at.
    sums_N = torch.stack([tensor.sum().float() for tensor in tensors.values()])
    suspects = [name for name, is_finite in zip(tensors, sums_N.isfinite().tolist(), strict=True) if not is_finite]
    return [name for name in suspects if not tensors[name].isfinite().all()]


def optimizer_tensors(state: Mapping[int, Mapping[str, object]]) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state, by their names and the index of the parameter."""
    return {
        f"the optimizer's {name} of parameter {number}": value
        for number, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Let the block seed torch's global random state, and restore it afterwards."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_random_layers(seed: int, epoch: int, step: int, micro_batch: int) -> None:
    """Seed random layers by (seed, epoch, step) and the index of the micro-batch in the batch."""
    mixed = np.random.SeedSequence((seed % 2**63, epoch, step, micro_batch)).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0] >> 1))


class StepSums(NamedTuple):
    """Sums of one step, or of one micro-batch of it, on one rank."""

    loss_sum: float
    weight_sum: float  # what the mean divides by: the samples, or their class weights
    lowest_label: int
    highest_label: int
    scale: float  # of the gradient, by a scaler for float16; 1 without one
    num_correct: Tensor  # stays on the device: reading it at every step would stall a GPU


def summed_steps(parts: Sequence[StepSums]) -> StepSums:
    """Return the sums of a step from those of its micro-batches."""
    if len(parts) == 1:
        return parts[0]
    return StepSums(
        loss_sum=sum(part.loss_sum for part in parts),
        weight_sum=sum(part.weight_sum for part in parts),
        lowest_label=min(part.lowest_label for part in parts),
        highest_label=max(part.highest_label for part in parts),
        scale=parts[0].scale,
        num_correct=torch.stack([part.num_correct for part in parts]).sum(),
    )


class PendingNumbers:
    """A few numbers that are copied from the device asynchronously.

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


def step_numbers(sums: LossSum, labels_B: Tensor) -> list[Tensor]:
    """Return loss, lowest and highest label, and the sum of the weights if there are any, on the device."""
    weights = [] if sums.weight_sum is None else [sums.weight_sum]
    return [sums.loss_sum.detach(), *_label_range(labels_B), *weights]


def _label_range(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    if not len(labels_B):
        nothing = torch.zeros((), device=labels_B.device)
        return nothing, nothing
    low, high = labels_B.aminmax()
    return low.float(), high.float()
