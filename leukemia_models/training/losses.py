"""The training loss, the sums of a step, and detection of divergence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """A sum of losses and of the weights to divide it by, so that sums of micro-batches and ranks can be added."""

    loss_sum: Tensor
    weight_sum: Tensor | None  # None: the number of rows


class TrainingLoss:
    """Cross-entropy with label smoothing and class weights, as in ``torch.nn.CrossEntropyLoss``.

    With class weights the mean is a weighted one.
    """

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self._smoothing, self._num_classes = settings.label_smoothing, settings.num_classes
        self._weights_K = (
            None if settings.class_weights is None else torch.tensor(settings.class_weights, device=device)
        )

    def sums(self, logits_BK: Tensor, labels_B: Tensor) -> LossSum:
        """Return the sum over a micro-batch's rows.

        Labels are clamped to the classes, since others would end the process on CUDA; the caller checks them.
        """
        labels_B = labels_B.clamp(0, self._num_classes - 1)
        loss_sum = functional.cross_entropy(
            logits_BK.float(), labels_B, self._weights_K, reduction="sum", label_smoothing=self._smoothing
        )
        return LossSum(loss_sum, None if self._weights_K is None else self._weights_K[labels_B].sum())

    def total_weight(self, labels_of_micro_batches: Iterable[Tensor], ranks: Ranks) -> Tensor | None:
        """Return the sum of all labels' weights, over the micro-batches of all ranks; None without class weights."""
        if self._weights_K is None:
            return None
        weight = self._weights_K[torch.cat(list(labels_of_micro_batches)).clamp(0, self._num_classes - 1)].sum()
        # A single rank need not wait for the device here.
        return weight if ranks.world_size == 1 else ranks.sum(weight.cpu())

    def mean(self, sums: LossSum, num_samples: int, total_weight: Tensor | None, ranks: Ranks) -> Tensor:
        """Return this micro-batch's part of the mean loss over the `num_samples` rows of the whole batch.

        It is multiplied by the number of ranks, because their gradients are averaged.
        """
        if total_weight is None:
            return sums.loss_sum * (ranks.world_size / num_samples)
        if ranks.world_size == 1:
            return sums.loss_sum / total_weight
        return sums.loss_sum * (ranks.world_size / float(total_weight))


MAX_SKIPS = 25
"""Maximum of skipped steps in a row; the scale has then fallen to a thirty-millionth."""


class DivergenceError(RunError):
    """Training has become non-finite; checkpoints saved before are finite."""


class SkippedSteps:
    """Counts consecutive steps that a gradient scaler skips, after which its scale falls.

    A few are normal, since the scaler tries scales that are too high; many in a row mean that no scale helps.
    """

    def __init__(self) -> None:
        self._scale = 0.0
        self._in_a_row = 0

    def require_few(self, scale: float, epoch: int, step: int) -> None:
        """Count by the scale at the beginning of a step; raise DivergenceError after :data:`MAX_SKIPS` skipped ones."""
        self._in_a_row = self._in_a_row + 1 if scale < self._scale else 0
        self._scale = scale
        if self._in_a_row >= MAX_SKIPS:
            raise DivergenceError(
                f"mixed precision skipped the {MAX_SKIPS} steps before epoch {epoch}, step {step}: their gradients "
                "were not finite at any scale, and the weights have not changed since"
            )


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with a non-finite value, or None; waits for the device."""
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            by_device.setdefault(tensor.device, {})[name] = tensor.detach()
    return next((name for found in map(_non_finite, by_device.values()) for name in found), None)


def _non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of non-finite tensors, all on one device."""
    # A sum takes a hundredth of the time of `isfinite`. It may overflow where no value does, so suspects are checked.
    sums_N = torch.stack([tensor.sum().float() for tensor in tensors.values()])
    suspects = [name for name, is_finite in zip(tensors, sums_N.isfinite().tolist(), strict=True) if not is_finite]
    return [name for name in suspects if not tensors[name].isfinite().all()]


def optimizer_tensors(state: Mapping[int, Mapping[str, object]]) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state, by a description for messages."""
    return {
        f"the optimizer's {name} of parameter {index}": value
        for index, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Restore torch's global random state after the block."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    before = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        if before is not None:
            torch.mps.set_rng_state(before)


def seed_random_layers(seed: int, epoch: int, step: int, micro_batch: int) -> None:
    """Seed torch's global random state by (seed, epoch, step) and the index of the micro-batch in the batch."""
    mixed = np.random.SeedSequence((seed % 2**63, epoch, step, micro_batch)).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0] >> 1))


class StepSums(NamedTuple):
    """Sums of one step, or of one micro-batch of it, on one rank."""

    loss_sum: float
    weight_sum: float  # the number of samples, or the sum of their class weights
    lowest_label: int
    highest_label: int
    scale: float  # the gradient scaler's; 1 without float16
    num_correct: Tensor  # on the device: reading it at every step would stall a GPU


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
    """Numbers that are copied from the device asynchronously: on CUDA while the backward pass is queued."""

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = numbers
        if numbers.device.type == "cuda":
            self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._host.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.current_stream(numbers.device).record_event()

    def values(self) -> list[float]:
        """Return the numbers, after waiting for the copy."""
        if self._event is not None:
            self._event.synchronize()
        return [float(number) for number in self._host.tolist()]


def step_numbers(sums: LossSum, labels_B: Tensor) -> list[Tensor]:
    """Return the loss, lowest and highest label, and the sum of class weights if there are any, on the device."""
    low, high = labels_B.aminmax() if len(labels_B) else torch.zeros(2, device=labels_B.device)
    weights = [] if sums.weight_sum is None else [sums.weight_sum]
    return [sums.loss_sum.detach(), low.float(), high.float(), *weights]
