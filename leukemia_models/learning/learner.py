"""The network with all that moves its weights: one rank's share of a batch in, gradients and moved weights out.

The only wait for the device in a step is for its loss and the range of its labels, which must be right before the
optimizer may use the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from leukemia_data.errors import RunError
from leukemia_data.streams.batch import to_device
from leukemia_models.batchnorm.reestimation import BatchNormStatistics, reestimate_batchnorm
from leukemia_models.inference.batch_source import Batch, BatchSource
from leukemia_models.inference.normalization import Normalization
from leukemia_models.inference.precision import autocast, gradient_scaler
from leukemia_models.inference.predict import predict_probabilities
from leukemia_models.inference.ranks import SINGLE, Ranks
from leukemia_models.judging.metrics import classification_metrics
from leukemia_models.learning.compiled import DEFAULT_BACKEND, Forward, compiled_forward
from leukemia_models.learning.divergence import first_not_finite, optimizer_tensors
from leukemia_models.learning.ema import WeightAverage
from leukemia_models.learning.history import TrainHistory
from leukemia_models.learning.loss import LossSum, TrainingLoss
from leukemia_models.learning.optim import build_optimizer, rate_in_use, set_learning_rate
from leukemia_models.learning.optimizer_state import optimizer_counters, optimizer_state, restore_optimizer
from leukemia_models.learning.run_state import EpochProgress, TrainSettings, TrainState, WeightAverageState

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
    weight_sum: float  # what the mean divides by: the samples, or their class weights
    lowest_label: int
    highest_label: int
    scale: float  # of the gradient, by a scaler for float16; 1 without one
    num_correct: Tensor  # stays on the device: reading it at every step would stall a GPU


class Learner:
    """The network, its optimizer, the average of its weights where one is kept, and what feeds them.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`, in the settings' memory format: see :func:`place`. With several ranks its BatchNorm layers must
        be synchronised.
    settings, normalization, prepare, device, compile_backend
        See :func:`leukemia_models.learning.train.fit`.
    num_steps : int
        Of the whole run.
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
        *,
        num_steps: int,
        ranks: Ranks = SINGLE,
        compile_backend: str = DEFAULT_BACKEND,
    ) -> None:
        self.model = model
        self.settings = settings
        self.device = device
        self.ranks = ranks
        self._normalization = normalization
        self._prepare = prepare
        self._loss = TrainingLoss(settings, device)
        self._optimizer = build_optimizer(model, settings.optimizer, num_steps)
        self._scaler = gradient_scaler(device, settings.amp)
        self._average = None if settings.ema_decay is None else WeightAverage(model, settings.ema_decay)
        self._statistics: BatchNormStatistics | None = None
        # Kept beside the network, not in its place: names in checkpoints stay what they are.
        network = _averaging_gradients(model, device) if ranks.world_size > 1 else model
        self._forward: Forward = compiled_forward(network, compile_backend) if settings.compile else network

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
            logits_BK = self._forward(share.images_BCHW)
        sums = self._loss.sums(logits_BK, share.labels_B)
        # The scaler's own way to tell its scale would wait for the device.
        scale = self._scaler.scale(torch.ones((), device=sums.loss_sum.device))
        pending = _PendingNumbers(torch.stack([scale, *_numbers_to_tell(sums, share.labels_B)]))
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(self._loss.mean(sums, num_samples, self.ranks)))
        num_correct = (logits_BK.detach().argmax(dim=1) == share.labels_B).sum()
        scale_now, loss, lowest, highest, *weight = pending.values()
        weight_sum = weight[0] if weight else len(share.labels_B)
        return StepSums(loss, weight_sum, int(lowest), int(highest), scale_now, num_correct)

    def update(self, lr: float) -> float:
        """Move the weights along the gradient, and return the learning rate at which it was done."""
        set_learning_rate(self._optimizer, lr)
        if self.settings.clip_norm is not None:
            # The norm that is limited is that of the gradient, not of its scaled copy.
            self._scaler.unscale_(self._optimizer)
            clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self.model)
            self._statistics = None
        return rate_in_use(self._optimizer)

    def spoilt(self) -> str | None:
        """Return what a run would go on from and is not finite: a weight, a buffer or what the optimizer remembers.

        None where all is well. This waits for the device.
        """
        remembered = optimizer_tensors(optimizer_state(self._optimizer, self.model))
        return first_not_finite({**self.model.state_dict(), **remembered})

    @property
    def judged_model(self) -> nn.Module:
        """The network to judge by: with the averaged weights, where an average is kept."""
        if self._average is None:
            return self.model
        network = self._average.network(self.model)
        if self._statistics is not None:
            self._statistics.apply(network)
        return network

    def estimate_batchnorm(self, source: BatchSource) -> None:
        """Estimate the BatchNorm statistics of the averaged weights, by which :meth:`validate` then judges them.

        They hold until the next step. Without an average nothing is done: the network's own statistics are judged.

        Parameters
        ----------
        source : BatchSource
            Training images without augmentation; the same ones, in the same order, every time.
        """
        if self._average is None:
            return
        self._statistics = reestimate_batchnorm(
            self._average.network(self.model),
            source.epoch(0),
            self._normalization,
            self.device,
            amp=self.settings.amp,
            channels_last=self.settings.channels_last,
            ranks=self.ranks,
        )

    def validate(self, source: BatchSource, epoch: int) -> dict[str, float | None]:
        """Return the validation fields of an epoch's record, over the samples of all ranks."""
        predictions = predict_probabilities(
            self.judged_model,
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
        """Return what a later process needs to go on, apart from the network's weights."""
        return TrainState(
            history,
            optimizer_state(self._optimizer, self.model),
            self._scaler.state_dict(),
            progress,
            optimizer_counters(self._optimizer),
            self._average_state(),
        )

    def _average_state(self) -> WeightAverageState | None:
        if self._average is None:
            return None
        statistics = {} if self._statistics is None else self._statistics.buffers
        return WeightAverageState({**self._average.state(), **statistics}, self._average.num_updates)

    def restore(self, start: TrainState) -> None:
        """Take over the optimizer's tensors and the average; rates and penalties are the settings'."""
        if start.optimizer_state is None:
            raise RunError("this checkpoint holds no optimizer state to go on from: resume from the run's last one")
        restore_optimizer(self._optimizer, self.model, start.optimizer_state, start.optimizer_counters)
        if start.scaler_state:
            self._scaler.load_state_dict(dict(start.scaler_state))
        if self._average is not None:
            if start.average is None:
                raise RunError("this checkpoint holds no average of the weights: go on with the run's own settings")
            self._average.restore(start.average.tensors, start.average.num_updates)


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


def _numbers_to_tell(sums: LossSum, labels_B: Tensor) -> list[Tensor]:
    """Return loss, lowest and highest label, and the sum of the weights if there are any, on the device."""
    weights = [] if sums.weight_sum is None else [sums.weight_sum]
    return [sums.loss_sum.detach(), *_label_range(labels_B), *weights]


def _label_range(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    if not len(labels_B):
        nothing = torch.zeros((), device=labels_B.device)
        return nothing, nothing
    low, high = labels_B.aminmax()
    return low.float(), high.float()
