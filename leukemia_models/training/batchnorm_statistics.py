"""Exact re-estimation of BatchNorm statistics from clean training images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_data.records.arguments import as_whole
from leukemia_data.streams.batch import to_device
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.normalization import Batch, Normalization, Normalizer, close_batches, unmasked
from leukemia_models.devices.precision import FP32, autocast
from leukemia_models.evaluation.predict import evaluating
from leukemia_models.training.sync_batchnorm import BATCHNORM_LAYERS, synchronized_batchnorm


class Moments(NamedTuple):
    """Number of values per channel, and their mean and biased variance, float64 (C,) on the CPU."""

    num_values: float
    mean_C: Tensor
    var_C: Tensor

    def merged(self, other: Moments) -> Moments:
        """Return the moments of the union of both sets of values."""
        num_values = self.num_values + other.num_values
        if not num_values:
            return self
        own, new = self.num_values / num_values, other.num_values / num_values
        step_C = other.mean_C - self.mean_C
        mean_C = self.mean_C + new * step_C
        return Moments(num_values, mean_C, own * (self.var_C + new * step_C.square()) + new * other.var_C)


class MomentsMeter:
    """Pools the moments of layers' inputs: on the device during a forward pass, on the CPU between passes.

    Parameters
    ----------
    num_channels : mapping of str to int
        Number of input channels by the layer's name.
    """

    def __init__(self, num_channels: Mapping[str, int]) -> None:
        zeros = {name: torch.zeros(channels, dtype=torch.float64) for name, channels in num_channels.items()}
        self._moments = {name: Moments(0, zeros_C, zeros_C) for name, zeros_C in zeros.items()}
        self._pending: list[tuple[str, int, Tensor]] = []

    def measure(self, name: str, features: Tensor) -> None:
        """Compute the moments of a layer's input, (B,C) or (B,C,...), without waiting for the device."""
        num_values = features.numel() // features.shape[1]
        if not num_values:  # this rank has no rows in this batch
            return
        axes = [0, *range(2, features.ndim)]
        var_C, mean_C = torch.var_mean(features.detach().float(), dim=axes, correction=0)
        self._pending.append((name, num_values, torch.stack([mean_C, var_C])))

    def collect(self) -> None:
        """Pool the moments of a forward pass, after one transfer to the CPU for all layers."""
        if not self._pending:
            return
        # To the CPU first: MPS has no float64.
        numbers = torch.cat([moments_2C for _, _, moments_2C in self._pending], dim=1).cpu().double()
        start = 0
        for name, num_values, moments_2C in self._pending:
            mean_C, var_C = numbers[:, start : start + moments_2C.shape[1]]
            self._moments[name] = self._moments[name].merged(Moments(num_values, mean_C, var_C))
            start += len(mean_C)
        self._pending.clear()

    def of_all(self, ranks: Ranks) -> dict[str, Moments]:
        """Return the moments over all ranks by layer, for layers that had input."""
        pooled = {name: _of_all(moments, ranks) for name, moments in self._moments.items()}
        return {name: moments for name, moments in pooled.items() if moments.num_values}


def _of_all(moments: Moments, ranks: Ranks) -> Moments:
    num_values, mean_C, var_C = moments
    gathered_WN = ranks.gather(torch.cat([torch.tensor([num_values], dtype=torch.float64), mean_C, var_C]))
    return reduce(Moments.merged, (Moments(float(each_N[0]), *each_N[1:].chunk(2)) for each_N in gathered_WN))


@contextmanager
def measuring_inputs(layers: Mapping[str, nn.Module], num_channels: Mapping[str, int]) -> Iterator[MomentsMeter]:
    """Measure the inputs of layers during the block; call the meter's ``collect`` after each forward pass."""
    meter = MomentsMeter(num_channels)
    handles = [layer.register_forward_pre_hook(partial(_measure, meter, name)) for name, layer in layers.items()]
    try:
        yield meter
    finally:
        for handle in handles:
            handle.remove()


def _measure(meter: MomentsMeter, name: str, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    meter.measure(name, inputs[0])


@dataclass(frozen=True)
class BatchNormStatistics:
    """Running means and variances of a network's BatchNorm layers.

    Parameters
    ----------
    buffers : mapping of str to tensor (C,), float32, on the CPU
        By their names in the network's ``state_dict``. Empty for a network without running statistics.
    num_images : int
        Number of images they were estimated from; 0 where they were copied from the network.
    """

    buffers: Mapping[str, Tensor]
    num_images: int

    @property
    def is_empty(self) -> bool:
        """Whether the network has nothing to estimate."""
        return not self.buffers

    def apply(self, model: nn.Module) -> None:
        """Copy the statistics into a network's buffers.

        Raises
        ------
        RunError
            If the network has no such buffers; nothing is copied then.
        """
        own = dict(model.named_buffers())
        strange = [name for name, value in self.buffers.items() if name not in own or own[name].shape != value.shape]
        if strange:
            raise RunError(
                f"BatchNorm statistics of another network: {len(strange)} of {len(self.buffers)} do not fit, such as "
                f"{strange[0]}"
            )
        with torch.no_grad():
            for name, value in self.buffers.items():
                own[name].copy_(value)


def running_statistics(model: nn.Module) -> BatchNormStatistics:
    """Return a copy of a network's present statistics."""
    buffers = dict(model.named_buffers())
    names = [name for layer in _tracking_layers(model) for name in _buffer_names(layer)]
    return BatchNormStatistics({name: buffers[name].detach().cpu().clone() for name in names}, num_images=0)


@contextmanager
def applied(statistics: BatchNormStatistics, model: nn.Module) -> Iterator[None]:
    """Give a network these statistics for the block, and then restore its own, bit for bit."""
    before = running_statistics(model)
    statistics.apply(model)
    try:
        yield
    finally:
        before.apply(model)


def reestimate_batchnorm(
    model: nn.Module,
    batches: Iterable[Batch],
    normalization: Normalization,
    device: torch.device,
    *,
    precision: str = FP32,
    channels_last: bool = True,
    max_batches: int | None = None,
    ranks: Ranks = SINGLE,
) -> BatchNormStatistics:
    """Estimate the running statistics of BatchNorm layers by pooling the moments of their inputs exactly.

    All ranks must call this with the same number of batches; the result is the same on each.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`; runs in eval mode, except that BatchNorm normalises by batch. It is left unchanged.
    batches : iterable of Batch
        Training images without augmentation, shuffled. Masked rows and batches of a single image are skipped. The
        iterator is closed at the end.
    normalization, device, precision, channels_last, ranks
        As for :func:`leukemia_models.evaluation.predict.predict_probabilities`.
    max_batches : int, optional
        Maximum number of batches, at least 1. A few thousand images suffice (arXiv 2105.07576, section 3).

    Returns
    -------
    BatchNormStatistics
        With unbiased variances, as torch has them. Empty, and `batches` unused, for a network without statistics.

    Raises
    ------
    UsageError
        If `max_batches` is below 1.
    RunError
        If there is no batch of two or more images, or a layer's input is non-finite.
    """
    if max_batches is not None:
        max_batches = as_whole(max_batches, "max_batches", at_least=1)
    if not _tracking_layers(model):
        return BatchNormStatistics({}, num_images=0)
    normalizer = Normalizer(normalization, device, channels_last=channels_last)
    num_images = 0
    with synchronized_batchnorm(model, ranks), evaluating(model):
        layers = _tracking_layers(model)
        num_channels = {name: len(layer.get_buffer("running_mean")) for name, layer in layers.items()}
        with _normalizing_by_batch(layers), measuring_inputs(layers, num_channels) as meter:
            for images_BHWC, num_rows in _images(batches, max_batches, ranks):
                with autocast(device, precision):
                    model(normalizer(to_device(images_BHWC, device)))
                meter.collect()
                num_images += num_rows
    if not num_images:
        raise RunError("BatchNorm statistics need at least one batch of two or more training images, and got none")
    return BatchNormStatistics(_buffers(meter.of_all(ranks)), num_images)


def _tracking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the BatchNorm layers with running statistics; others normalise by batch in eval mode too."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BATCHNORM_LAYERS)}
    return {name: layer for name, layer in layers.items() if layer.running_mean is not None}


def _buffer_names(layer_name: str) -> tuple[str, str]:
    prefix = f"{layer_name}." if layer_name else ""
    return f"{prefix}running_mean", f"{prefix}running_var"


@contextmanager
def _normalizing_by_batch(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put the layers in training mode for the block, and then restore their buffers, but not the mode."""
    before = [(buffer, buffer.clone()) for layer in layers.values() for buffer in layer.buffers()]
    for layer in layers.values():
        layer.train()
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _images(batches: Iterable[Batch], max_batches: int | None, ranks: Ranks) -> Iterator[tuple[Tensor, int]]:
    """Yield this rank's images, and the number of images of all ranks, of each batch of two or more."""
    iterator = ranks.run_on_all(lambda: iter(batches))
    try:
        for _ in range(max_batches) if max_batches is not None else count():
            batch = ranks.run_on_all(lambda: next(iterator, None))
            if batch is None:
                return
            images_BHWC = unmasked(batch.images_BHWC, batch.mask_B)
            num_rows = int(ranks.all_gather_numbers(len(images_BHWC)).sum())
            if num_rows > 1:
                yield images_BHWC, num_rows
    finally:
        close_batches(iterator)


def _buffers(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    buffers: dict[str, Tensor] = {}
    for name, (num_values, mean_C, var_C) in moments.items():
        unbiased_C = var_C * (num_values / max(num_values - 1, 1))
        if not (mean_C.isfinite().all() and unbiased_C.isfinite().all()):
            raise RunError(
                f"the input of the BatchNorm layer {name} is non-finite: the network's weights have overflowed; train "
                "again with a lower learning rate"
            )
        buffers |= zip(_buffer_names(name), (mean_C.float(), unbiased_C.float()), strict=True)
    return buffers
