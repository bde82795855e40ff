"""One step and one epoch of learning: batches in, moved weights and sums out.

The only waits for the device are for each step's loss, which must be finite before the optimizer may use its
gradient, and for the count of right answers at the epoch's end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from leukemia_data.errors import RunError
from leukemia_models.history import TrainHistory
from leukemia_models.metrics import classification_metrics
from leukemia_models.normalization import Normalization, Normalizer
from leukemia_models.optim import build_optimizer, learning_rate
from leukemia_models.precision import autocast, gradient_scaler
from leukemia_models.predict import Batch, predict_probabilities
from leukemia_models.run_state import TrainSettings, TrainState

Augment = Callable[[Tensor, int, Tensor], Tensor]
"""(uint8 images (B,S,S,3), epoch, sample indices (B,)), all on the device -> images of the same kind or float."""

OnStep = Callable[[int, float, int], None]
"""(step from 1, mean loss of the batch, its number of samples)."""


class BatchSource(Protocol):
    """A split as a stream of batches."""

    def epoch(self, epoch: int) -> Iterable[Batch]:
        """Return the batches of one epoch, counted from 1; the order may depend on the epoch and nothing else."""
        ...

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...


@dataclass(frozen=True)
class EpochTotals:
    """Sums over the samples of one epoch, and the learning rate of its last step."""

    lr: float
    loss_sum: float
    num_correct: int
    num_samples: int


class Learner:
    """The network with all that moves its weights."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        normalization: Normalization,
        augment: Augment,
        device: torch.device,
    ) -> None:
        memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(device).to(memory_format=memory_format)
        self.settings = settings
        self.normalization = normalization
        self.normalizer = Normalizer(normalization, device, channels_last=settings.channels_last)
        self.augment = augment
        self.device = device
        self.optimizer = build_optimizer(model.parameters(), settings.optimizer)
        self.scaler = gradient_scaler(device, settings.amp)

    def train_epoch(self, source: BatchSource, epoch: int, on_step: OnStep) -> EpochTotals:
        """Take one step per batch; the sums are weighted by samples, not by batches."""
        self.model.train()
        lr, loss_sum, num_samples = 0.0, 0.0, 0
        # Stays on the device until the epoch ends: reading it at every step would stall a GPU.
        num_correct = torch.zeros((), dtype=torch.int64, device=self.device)
        with _random_layers_seeded(self.settings.seed, epoch, self.device):
            for step, batch in enumerate(source.epoch(epoch), start=1):
                batch_size = len(batch.labels_B)
                if batch_size < 2:
                    continue
                lr = self._learning_rate(epoch, step, len(source))
                where = f"epoch {epoch}, step {step}"
                loss, correct = self._step(batch, epoch, lr, where)
                num_correct += correct
                loss_sum += loss * batch_size
                num_samples += batch_size
                on_step(step, loss, batch_size)
        if num_samples == 0:
            raise RunError(
                f"epoch {epoch} has no batch of two or more images: training needs more images or a larger batch"
            )
        return EpochTotals(lr, loss_sum, int(num_correct), num_samples)

    def _learning_rate(self, epoch: int, step: int, num_steps: int) -> float:
        progress = epoch - 1 + (step - 0.5) / num_steps
        return learning_rate(self.settings.optimizer, min(progress, epoch), self.settings.epochs)

    def _step(self, batch: Batch, epoch: int, lr: float, where: str) -> tuple[float, Tensor]:
        """Return the batch's mean loss and, on the device, how many predictions were right."""
        _check_labels(batch.labels_B, self.settings.num_classes, where)
        labels_B = batch.labels_B.to(self.device, non_blocking=True)
        with torch.no_grad():
            images_BHWC = batch.images_BHWC.to(self.device, non_blocking=True)
            indices_B = batch.indices_B.to(self.device, non_blocking=True)
            images_BCHW = self.normalizer(self.augment(images_BHWC, epoch, indices_B))
        with autocast(self.device, self.settings.amp):
            logits_BK = self.model(images_BCHW)
        loss = functional.cross_entropy(logits_BK.float(), labels_B)
        pending_loss = _PendingScalar(loss)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        loss_value = _require_finite(pending_loss.value(), where, lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss_value, (logits_BK.detach().argmax(dim=1) == labels_B).sum()

    def validate(self, source: BatchSource, epoch: int) -> dict[str, float | None]:
        """Return the validation fields of an epoch's record."""
        predictions = predict_probabilities(
            self.model,
            source.epoch(epoch),
            self.normalization,
            self.device,
            amp=self.settings.amp,
            channels_last=self.settings.channels_last,
        )
        scores = classification_metrics(predictions.labels_N, predictions.probabilities_NK)
        return {
            "valid_loss": predictions.loss,
            "valid_accuracy": scores.accuracy,
            "valid_balanced_accuracy": scores.balanced_accuracy,
            "valid_weighted_f1": scores.weighted_f1,
            "valid_auroc": scores.auroc,
        }

    def state(self, history: TrainHistory) -> TrainState:
        """Return what a later process needs to go on, apart from the weights."""
        return TrainState(history, self.optimizer.state_dict()["state"], self.scaler.state_dict())

    def restore(self, start: TrainState) -> None:
        """Take over the optimizer's tensors; rates and penalties are the settings'."""
        if start.optimizer_state is None:
            raise RunError("this checkpoint holds no optimizer state to go on from: resume from the run's last one")
        parameters = list(self.model.parameters())
        for number, tensors in start.optimizer_state.items():
            if number >= len(parameters) or not _fits(parameters[number], tensors):
                raise RunError("the saved optimizer state does not fit this network: was it saved by another one?")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": dict(start.optimizer_state), "param_groups": groups})
        for parameter, tensors in self.optimizer.state.items():
            for name, value in tensors.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # The same strides as in the uninterrupted run: other loops round differently.
                    tensors[name] = torch.empty_like(parameter).copy_(value)
        if start.scaler_state:
            self.scaler.load_state_dict(dict(start.scaler_state))


class _PendingScalar:
    """A number on its way from the device, waited for only when it is wanted.

    On CUDA the copy runs while the backward pass is queued, so waiting for it never leaves the GPU idle.
    """

    def __init__(self, scalar: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = scalar.detach()
        if scalar.device.type == "cuda":
            self._host = torch.empty((), dtype=scalar.dtype, pin_memory=True)
            self._host.copy_(scalar.detach(), non_blocking=True)
            self._event = torch.cuda.current_stream(scalar.device).record_event()

    def value(self) -> float:
        if self._event is not None:
            self._event.synchronize()
        return float(self._host)


@contextmanager
def _random_layers_seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Let layers such as dropout draw from (seed, epoch); afterwards torch's global state is as before."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
        yield


def _require_finite(loss: float, where: str, lr: float) -> float:
    if not math.isfinite(loss):
        raise RunError(
            f"the training loss became {loss} in {where}, at learning rate {lr:.3g}; the weights were not updated "
            "with it. Try a lower learning rate or some warm-up epochs"
        )
    return loss


def _check_labels(labels_B: Tensor, num_classes: int, where: str) -> None:
    """Refuse labels that are no class, where looking costs no wait for the device."""
    if labels_B.device.type != "cpu":
        return
    low, high = (int(bound) for bound in labels_B.aminmax())
    if low < 0 or high >= num_classes:
        raise RunError(
            f"{where}: labels from {low} to {high}, but the classes are 0 to {num_classes - 1}; "
            "images without a label (-1) cannot be trained on"
        )


def _fits(parameter: nn.Parameter, tensors: Mapping[str, Any]) -> bool:
    values = (value for value in tensors.values() if isinstance(value, Tensor) and value.ndim)
    return all(value.shape == parameter.shape for value in values)
