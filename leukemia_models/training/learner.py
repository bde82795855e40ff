"""A network with its optimizer and loss: micro-batches in, gradients and steps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from leukemia_data.errors import RunError
from leukemia_data.streams.batch import to_device
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.normalization import (
    Batch,
    BatchSource,
    Normalization,
    area_reduced,
    reduced_batches,
    unmasked,
)
from leukemia_models.devices.precision import DEFAULT_BACKEND, Forward, autocast, compiled_forward, gradient_scaler
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.training.batchnorm_statistics import BatchNormStatistics, reestimate_batchnorm
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.losses import (
    PendingNumbers,
    StepLabels,
    StepSums,
    StepTotals,
    TrainingLoss,
    first_non_finite,
    optimizer_tensors,
    seed_random_layers,
    summed_steps,
)
from leukemia_models.training.optimizers import build_optimizer, rate_in_use, set_learning_rate
from leukemia_models.training.run_state import (
    EpochProgress,
    OptimizerState,
    TrainSettings,
    TrainState,
    WeightAverageState,
)
from leukemia_models.training.sync_batchnorm import MicroBatchStatistics
from leukemia_models.training.weights import WeightAverage


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> OptimizerState:
    """Return the tensors of each parameter that has any; not copies."""
    return {
        index: optimizer.state[parameter]
        for index, parameter in enumerate(model.parameters())
        if parameter in optimizer.state
    }


def optimizer_counters(optimizer: Optimizer) -> dict[str, float]:
    """Return an optimizer's counters for all parameters together, often none."""
    counters = getattr(optimizer, "counters", None)
    return counters() if counters is not None else {}


def restore_optimizer(
    optimizer: Optimizer, model: nn.Module, saved: OptimizerState, counters: Mapping[str, float]
) -> None:
    """Load a saved state and counters into an optimizer.

    Raises
    ------
    RunError
        If they belong to another network or optimizer.
    """
    parameters = list(model.parameters())
    if any(index >= len(parameters) or not _fits(parameters[index], own) for index, own in saved.items()):
        raise RunError("the saved optimizer state does not fit this network: was it saved by another one?")
    if counters.keys() != optimizer_counters(optimizer).keys():
        raise RunError("the saved optimizer state is of another optimizer: continue with the settings of the run")
    _load(optimizer, parameters, saved)
    if counters:
        optimizer.set_counters(counters)  # type: ignore[attr-defined]


def _load(optimizer: Optimizer, parameters: list[nn.Parameter], saved: OptimizerState) -> None:
    index_of = {id(parameter): index for index, parameter in enumerate(parameters)}
    in_groups = [index_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state = {place: dict(saved[index]) for place, index in enumerate(in_groups) if index in saved}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, tensors in optimizer.state.items():
        for name, value in tensors.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # The strides of the uninterrupted run: loops over others round differently.
                tensors[name] = torch.empty_like(parameter).copy_(value)


def _fits(parameter: nn.Parameter, tensors: Mapping[str, Any]) -> bool:
    values = (value for value in tensors.values() if isinstance(value, Tensor) and value.ndim)
    return all(value.shape == parameter.shape for value in values)


Prepare = Callable[[Tensor, int, Tensor, Tensor], Tensor]
"""(uint8 images (B,S,S,3) on the device, epoch, sample indices, their occurrences) -> augmented, normalised (B,3,S,S).

Indices and occurrences are (B,), on the CPU. The result for an image depends on the epoch, the sample and its
occurrence alone, not on its batch.
"""


class MicroBatch(NamedTuple):
    """Images and labels that go through the network together on one rank, on the device."""

    images_BCHW: Tensor
    labels_B: Tensor


class Learner:
    """A network, its optimizer and loss, and the average of its weights where one is kept.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`, in the settings' memory format: see :func:`place`. With several ranks its BatchNorm layers must
        be synchronised, unless the settings say otherwise.
    settings, normalization, prepare, device, ranks, compile_backend
        As for :func:`leukemia_models.training.train.fit`; the settings are decided.
    num_steps : int
        Steps of the whole run.
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
        self._evaluation: dict[str, Any] = {
            "normalization": normalization,
            "device": device,
            "precision": settings.precision,
            "channels_last": settings.channels_last,
            "ranks": ranks,
        }
        self._prepare = prepare
        self._loss = TrainingLoss(settings, device)
        self._optimizer = build_optimizer(model, settings.optimizer, num_steps, fused=bool(settings.fused))
        self._scaler = gradient_scaler(device, settings.precision)
        self._average = None if settings.ema_decay is None else WeightAverage(model, settings.ema_decay)
        self._statistics: BatchNormStatistics | None = None
        # Beside the network, not in its place: the wrapper would change names in checkpoints.
        self._parallel = _averaging_gradients(model, device) if ranks.world_size > 1 else None
        network = self._parallel or model
        self._forward: Forward = compiled_forward(network, compile_backend) if settings.compile else network
        self._batchnorm_statistics = MicroBatchStatistics(
            model, ranks, settings.accumulate, synchronized=settings.sync_batchnorm
        )

    def load(self, batch: Batch, epoch: int) -> MicroBatch:
        """Return a batch on the device, reduced to the epoch's size and prepared, without its masked rows."""
        images_BHWC = self._rows(batch.images_BHWC, batch)
        size_px = self.settings.size_at(epoch)
        if size_px is not None:
            images_BHWC = area_reduced(images_BHWC, size_px)
        labels_B = self._rows(batch.labels_B, batch)
        indices_B = batch.indices_B[batch.mask_B]
        if not len(indices_B):
            return MicroBatch(images_BHWC.permute(0, 3, 1, 2).float(), labels_B)
        with torch.no_grad():
            images_BCHW = self._prepare(images_BHWC, epoch, indices_B, batch.occurrences_B[batch.mask_B])
        return MicroBatch(images_BCHW.to(memory_format=_memory_format(self.settings)), labels_B)

    def _rows(self, values: Tensor, batch: Batch) -> Tensor:
        return unmasked(to_device(values, self.device), batch.mask_B)

    def step_labels(self, batches: Sequence[Batch]) -> StepLabels:
        """Return what the labels of this rank's micro-batches say, without waiting for the device."""
        return self._loss.of_labels([unmasked(batch.host_labels_B, batch.mask_B) for batch in batches])

    def micro_batches(self, batches: list[Batch], epoch: int, step: int) -> Iterator[MicroBatch]:
        """Seed the random layers for each of this rank's micro-batches, load it when it is asked for, and yield it.

        Batches are removed from the list one by one, so that only one at a time has activations.
        """
        first = self.ranks.rank * len(batches)
        for number in range(first, first + len(batches)):
            seed_random_layers(self.settings.seed, epoch, step, number)
            yield self.load(batches.pop(0), epoch)

    def gradient(self, micro_batches: Iterable[MicroBatch], totals: StepTotals) -> StepSums:
        """Compute the gradient of the mean loss over the whole batch of all ranks; the sums are of this rank's rows.

        Parameters
        ----------
        micro_batches : iterable of MicroBatch
            From :meth:`micro_batches`, as many as the settings say.
        totals : StepTotals
            Of at least two samples.
        """
        self._optimizer.zero_grad(set_to_none=True)
        found: list[StepSums] = []
        with self._batchnorm_statistics.of_step(totals.share_with_rows):
            for micro_batch in micro_batches:
                # Gradients accumulate locally until the backward pass of the last micro-batch averages them.
                is_last = len(found) == self.settings.accumulate - 1
                with nullcontext() if is_last or self._parallel is None else self._parallel.no_sync():
                    found.append(self._backward(micro_batch, totals))
        return summed_steps(found)

    def _backward(self, micro_batch: MicroBatch, totals: StepTotals) -> StepSums:
        with self._batchnorm_statistics.of_micro_batch(len(micro_batch.labels_B)):
            with autocast(self.device, self.settings.precision):
                logits_BK = self._forward(micro_batch.images_BCHW)
            loss_sum = self._loss.sum(logits_BK, micro_batch.labels_B)
            pending = PendingNumbers(torch.stack([loss_sum.detach(), *self._scales(loss_sum.device)]))
            torch.autograd.backward(self._scaler.scale(self._loss.mean(loss_sum, totals, self.ranks)))
        num_correct = (logits_BK.detach().argmax(dim=1) == micro_batch.labels_B).sum()
        loss, *scale = pending.values()
        return StepSums(loss, scale[0] if scale else 1.0, num_correct)

    def _scales(self, device: torch.device) -> list[Tensor]:
        """Return the gradient scaler's scale, if it has one; its get_scale() would wait for the device."""
        return [self._scaler.scale(torch.ones((), device=device))] if self._scaler.is_enabled() else []

    def average_statistics(self) -> None:
        """Make the running statistics of BatchNorm equal on all ranks, which must all call this.

        Needed before the network is evaluated or saved, as ranks whose BatchNorm is not synchronised keep their own.
        """
        self._batchnorm_statistics.average()

    def update(self, lr: float) -> float:
        """Take a step along the gradient, and return the learning rate that was used."""
        set_learning_rate(self._optimizer, lr)
        if self.settings.clip_norm is not None:
            self._scaler.unscale_(self._optimizer)
            clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update(self.model)
            self._statistics = None
        return rate_in_use(self._optimizer)

    def first_non_finite(self) -> str | None:
        """Return the name of a non-finite weight, buffer or optimizer tensor, or None; waits for the device."""
        state = optimizer_tensors(optimizer_state(self._optimizer, self.model))
        return first_non_finite({**self.model.state_dict(), **state})

    @property
    def evaluation_model(self) -> nn.Module:
        """The network to evaluate, with the averaged weights where an average is kept."""
        if self._average is None:
            return self.model
        network = self._average.network(self.model)
        if self._statistics is not None:
            self._statistics.apply(network)
        return network

    def estimate_batchnorm(self, source: BatchSource, epoch: int) -> None:
        """Estimate the BatchNorm statistics of the averaged weights, which hold until the next step.

        Parameters
        ----------
        source : BatchSource
            Training images without augmentation, in the same order every time; unused without an average.
        epoch : int
            Whose size the images are reduced to.
        """
        if self._average is not None:
            network = self._average.network(self.model)
            batches = self._sized(source.epoch(0), epoch)
            self._statistics = reestimate_batchnorm(network, batches, **self._evaluation)

    def validate(self, source: BatchSource, epoch: int) -> dict[str, float | None]:
        """Return the validation fields of an epoch's record, over the samples of all ranks."""
        batches = self._sized(source.epoch(epoch), epoch)
        predictions = predict_probabilities(self.evaluation_model, batches, **self._evaluation)
        names = [str(label) for label in range(predictions.probabilities_NK.shape[1])]
        scores = classification_metrics(predictions.labels_N, predictions.probabilities_NK, names, of_each_class=False)
        return {
            "valid_loss": predictions.loss,
            "valid_accuracy": scores.accuracy,
            "valid_balanced_accuracy": scores.balanced_accuracy,
            "valid_weighted_f1": scores.weighted_f1,
            "valid_auroc": scores.auroc,
        }

    def _sized(self, batches: Iterable[Batch], epoch: int) -> Iterable[Batch]:
        size_px = self.settings.size_at(epoch)
        return batches if size_px is None else reduced_batches(batches, size_px, self.device)

    def state(self, history: TrainHistory, progress: EpochProgress | None = None) -> TrainState:
        """Return the state to resume from, apart from the network's weights."""
        average: WeightAverageState | None = None
        if self._average is not None:
            statistics = {} if self._statistics is None else self._statistics.buffers
            average = WeightAverageState({**self._average.state(), **statistics}, self._average.num_updates)
        return TrainState(
            history,
            optimizer_state(self._optimizer, self.model),
            self._scaler.state_dict(),
            progress,
            optimizer_counters(self._optimizer),
            average,
        )

    def restore(self, start: TrainState) -> None:
        """Load the optimizer's tensors and the average; learning rates and penalties are those of the settings.

        Raises
        ------
        RunError
            If the state lacks one of them, or belongs to another network or optimizer.
        """
        if start.optimizer_state is None:
            raise RunError("this checkpoint has no optimizer state to resume from: use the last one of the run")
        restore_optimizer(self._optimizer, self.model, start.optimizer_state, start.optimizer_counters)
        if start.scaler_state:
            self._scaler.load_state_dict(dict(start.scaler_state))
        if self._average is not None:
            if start.average is None:
                raise RunError("this checkpoint has no average of the weights: continue with the settings of the run")
            self._average.restore(start.average.tensors, start.average.num_updates)


def place(model: nn.Module, settings: TrainSettings, device: torch.device) -> None:
    """Move a network to a device, in the settings' memory format."""
    model.to(device).to(memory_format=_memory_format(settings))


def _memory_format(settings: TrainSettings) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def _averaging_gradients(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Wrap a network so that its backward pass leaves the mean gradient of all ranks."""
    # Buffers need no broadcast: synchronized BatchNorm keeps them equal, or MicroBatchStatistics averages them before
    # they are used. torch 2.14 renamed the option.
    names = signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, [device] if device.type == "cuda" else None, **options)
