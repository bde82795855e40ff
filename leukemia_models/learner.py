"""The network with all that moves its weights: one rank's share of a batch in, gradients and moved weights out.

The only wait for the device in a step is for its loss and the range of its labels, which must be right before the
optimizer may use the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from leukemia_data.batch import to_device
from leukemia_data.errors import RunError
from leukemia_models.batch_source import Batch, BatchSource
from leukemia_models.history import TrainHistory
from leukemia_models.metrics import classification_metrics
from leukemia_models.normalization import Normalization
from leukemia_models.optim import build_optimizer
from leukemia_models.precision import autocast, gradient_scaler
from leukemia_models.predict import predict_probabilities
from leukemia_models.ranks import SINGLE, Ranks
from leukemia_models.run_state import EpochProgress, TrainSettings, TrainState

Prepare = Callable[[Tensor, int, Tensor], Tensor]
"""(uint8 images (B,S,S,3) on the device, epoch, sample numbers (B,) on the CPU) -> the network's float input (B,3,S,S).

Augments and normalises. Each sample's result depends on the epoch and the sample alone, not on its batch.
"""


class Share(NamedTuple):
    """A rank's rows of a batch, on the device."""

    images_BCHW: Tensor
    labels_B: Tensor


class StepSums(NamedTuple):
    """What one step found on one rank."""

    loss_sum: float
    lowest_label: int
    highest_label: int
    num_correct: Tensor  # stays on the device: reading it at every step would stall a GPU


class Learner:
    """The network, its optimizer, and what feeds them.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`, in the settings' memory format: see :func:`place`. With several ranks its BatchNorm layers must
        be synchronised.
    settings, normalization, prepare, device
        See :func:`leukemia_models.train.fit`.
    ranks : Ranks
        Every rank has a learner, with the same weights.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        normalization: Normalization,
        prepare: Prepare,
        device: torch.device,
        ranks: Ranks = SINGLE,
    ) -> None:
        self.model = model
        self.settings = settings
        self.device = device
        self.ranks = ranks
        self._normalization = normalization
        self._prepare = prepare
        self._optimizer = build_optimizer(model.parameters(), settings.optimizer)
        self._scaler = gradient_scaler(device, settings.amp)
        # Kept beside the network, not in its place: names in checkpoints stay what they are.
        self._network = _averaging_gradients(model, device) if ranks.world_size > 1 else model

    def load(self, batch: Batch, epoch: int) -> Share:
        """Bring a batch's rows to the device and prepare them; masked rows are left out."""
        images_BHWC = to_device(batch.images_BHWC, self.device)
        labels_B = to_device(batch.labels_B, self.device)
        indices_B = batch.indices_B
        if not batch.mask_B.all():
            rows = batch.mask_B.nonzero().flatten()
            indices_B = indices_B[rows]
            rows = rows.to(self.device)
            images_BHWC, labels_B = images_BHWC[rows], labels_B[rows]
        if not len(indices_B):
            return Share(images_BHWC.permute(0, 3, 1, 2).float(), labels_B)
        with torch.no_grad():
            images_BCHW = self._prepare(images_BHWC, epoch, indices_B)
        return Share(images_BCHW.to(memory_format=_memory_format(self.settings)), labels_B)

    def backward(self, share: Share, num_samples: int) -> StepSums:
        """Compute the gradient of the mean loss over the `num_samples` rows of all ranks."""
        with autocast(self.device, self.settings.amp):
            logits_BK = self._network(share.images_BCHW)
        # A label outside stops the step before the weights move; on CUDA it would stop the whole process here.
        labels_B = share.labels_B.clamp(0, self.settings.num_classes - 1)
        loss_sum = functional.cross_entropy(logits_BK.float(), labels_B, reduction="sum")
        pending = _PendingNumbers(torch.stack([loss_sum.detach(), *_label_range(share.labels_B)]))
        self._optimizer.zero_grad(set_to_none=True)
        # The ranks' gradients are averaged, so each rank's part counts as often as there are ranks.
        torch.autograd.backward(self._scaler.scale(loss_sum * (self.ranks.world_size / num_samples)))
        num_correct = (logits_BK.detach().argmax(dim=1) == share.labels_B).sum()
        loss, lowest, highest = pending.values()
        return StepSums(loss, int(lowest), int(highest), num_correct)

    def update(self, lr: float) -> None:
        """Move the weights along the gradient."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def validate(self, source: BatchSource, epoch: int) -> dict[str, float | None]:
        """Return the validation fields of an epoch's record, over the samples of all ranks."""
        predictions = predict_probabilities(
            self.model,
            source.epoch(epoch),
            self._normalization,
            self.device,
            amp=self.settings.amp,
            channels_last=self.settings.channels_last,
            ranks=self.ranks,
        )
        scores = classification_metrics(predictions.labels_N, predictions.probabilities_NK)
        return {
            "valid_loss": predictions.loss,
            "valid_accuracy": scores.accuracy,
            "valid_balanced_accuracy": scores.balanced_accuracy,
            "valid_weighted_f1": scores.weighted_f1,
            "valid_auroc": scores.auroc,
        }

    def state(self, history: TrainHistory, progress: EpochProgress | None = None) -> TrainState:
        """Return what a later process needs to go on, apart from the weights."""
        return TrainState(history, self._optimizer.state_dict()["state"], self._scaler.state_dict(), progress)

    def restore(self, start: TrainState) -> None:
        """Take over the optimizer's tensors; rates and penalties are the settings'."""
        if start.optimizer_state is None:
            raise RunError("this checkpoint holds no optimizer state to go on from: resume from the run's last one")
        parameters = list(self.model.parameters())
        for number, tensors in start.optimizer_state.items():
            if number >= len(parameters) or not _fits(parameters[number], tensors):
                raise RunError("the saved optimizer state does not fit this network: was it saved by another one?")
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": dict(start.optimizer_state), "param_groups": groups})
        for parameter, tensors in self._optimizer.state.items():
            for name, value in tensors.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # The same strides as in the uninterrupted run: other loops round differently.
                    tensors[name] = torch.empty_like(parameter).copy_(value)
        if start.scaler_state:
            self._scaler.load_state_dict(dict(start.scaler_state))


def place(model: nn.Module, settings: TrainSettings, device: torch.device) -> None:
    """Move a network to a device, in the settings' memory format."""
    model.to(device).to(memory_format=_memory_format(settings))


def _memory_format(settings: TrainSettings) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def _averaging_gradients(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a network so that its backward pass leaves the mean gradient of all ranks."""
    # Synchronised BatchNorm keeps buffers equal; the option not to send them has another name since torch 2.14.
    names = signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None, **options)


class _PendingNumbers:
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
        if self._event is not None:
            self._event.synchronize()
        return [float(number) for number in self._host.tolist()]


def _label_range(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    if not len(labels_B):
        nothing = torch.zeros((), device=labels_B.device)
        return nothing, nothing
    low, high = labels_B.aminmax()
    return low.float(), high.float()


def _fits(parameter: nn.Parameter, tensors: Mapping[str, Any]) -> bool:
    values = (value for value in tensors.values() if isinstance(value, Tensor) and value.ndim)
    return all(value.shape == parameter.shape for value in values)
