"""The training loss, the sums of a step, and detection of divergence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from leukemia_data.errors import RunError
from leukemia_models.devices.distributed import Ranks
from leukemia_models.training.run_state import TrainSettings


class StepLabels(NamedTuple):
    """What the labels of a rank's micro-batches say before the forward pass, computed on the CPU."""

    num_rows: int = 0
    lowest: int = 0
    highest: int = 0
    weight: float = 0.0  # the number of rows, or the sum of their class weights
    num_empty: int = 0  # micro-batches without rows


class StepTotals(NamedTuple):
    """Sums over the micro-batches of all ranks, which each rank needs for its part of the mean loss."""

    num_samples: int
    weight: float
    share_with_rows: float = 1.0  # of the micro-batches


class TrainingLoss:
    """Cross-entropy with label smoothing and class weights, as in ``torch.nn.CrossEntropyLoss``.

    With class weights the mean is a weighted one.
    """

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self._smoothing, self._num_classes = settings.label_smoothing, settings.num_classes
        self._host_weights_K = None if settings.class_weights is None else torch.tensor(settings.class_weights)
        self._weights_K = None if self._host_weights_K is None else self._host_weights_K.to(device)

    def of_labels(self, labels_of_micro_batches: Sequence[Tensor]) -> StepLabels:
        """Return what is known of the unmasked labels of a rank's micro-batches, all on the CPU.

        Labels outside of the classes are weighed like the nearest one: check them before the forward pass.
        """
        labels_N = torch.cat(list(labels_of_micro_batches))
        num_rows = len(labels_N)
        num_empty = sum(not len(labels_B) for labels_B in labels_of_micro_batches)
        if not num_rows:
            return StepLabels(num_empty=num_empty)
        lowest, highest = torch.stack(labels_N.aminmax()).tolist()
        weight = float(num_rows)
        if self._host_weights_K is not None:
            weights_N = self._host_weights_K[labels_N.clamp(0, self._num_classes - 1)]
            weight = cast(float, weights_N.sum().tolist())
        return StepLabels(num_rows, lowest, highest, weight, num_empty)

    def sum(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Return the sum over a micro-batch's rows.

        Labels outside of the classes would end the process on CUDA: see :meth:`of_labels`.
        """
        return functional.cross_entropy(
            logits_BK.float(), labels_B, self._weights_K, reduction="sum", label_smoothing=self._smoothing
        )

    def mean(self, loss_sum: Tensor, totals: StepTotals, ranks: Ranks) -> Tensor:
        """Return the part of the whole batch's mean loss that has this sum.

        It is multiplied by the number of ranks, because their gradients are averaged.
        """
        if self._weights_K is not None and ranks.world_size == 1:
            # Rounds otherwise than the product.
            return loss_sum / totals.weight
        return loss_sum * (ranks.world_size / totals.weight)


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
    scale: float  # the gradient scaler's; 1 without float16
    num_correct: Tensor  # on the device: reading it at every step would stall a GPU


def summed_steps(parts: Sequence[StepSums]) -> StepSums:
    """Return the sums of a step from those of its micro-batches."""
    if len(parts) == 1:
        return parts[0]
    return StepSums(
        loss_sum=sum(part.loss_sum for part in parts),
        scale=parts[0].scale,
        num_correct=torch.stack([part.num_correct for part in parts]).sum(),
    )


class PendingNumbers:
    """Numbers that are copied from the device asynchronously: on CUDA while the backward pass is queued.

    On MPS torch has no event for a copy, so that :meth:`values` waits for everything queued, the backward pass too.
    """

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
