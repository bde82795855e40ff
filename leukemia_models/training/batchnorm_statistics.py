"""BatchNorm statistics estimated anew, exactly, from clean training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_data.records.arguments import as_whole
from leukemia_data.streams.batch import to_device
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.normalization import Batch, Normalization, Normalizer
from leukemia_models.devices.precision import autocast
from leukemia_models.evaluation.predict import evaluating
from leukemia_models.training.sync_batchnorm import BatchNorm, SynchronizedBatchNorm, synchronized_batchnorm


class Moments(NamedTuple):
    """Number of values per channel, their mean and biased variance; float64 (C,), on the CPU."""

    num_values: float
    mean_C: Tensor
    var_C: Tensor

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both sets of values together."""
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
        The layers' names, and how many channels reach each.
    """

    def __init__(self, num_channels: Mapping[str, int]) -> None:
        self._moments = {name: _no_values(channels) for name, channels in num_channels.items()}
        self._pending: list[tuple[str, int, Tensor]] = []

    def measure(self, name: str, features: Tensor) -> None:
        """Take the moments of one layer's input, (B,C) or (B,C,...); nothing is waited for."""
        num_values = features.numel() // features.shape[1]
        if not num_values:  # this rank has no rows in this batch
            return
        axes = [0, *range(2, features.ndim)]
        var_C, mean_C = torch.var_mean(features.detach().float(), dim=axes, correction=0)
        self._pending.append((name, num_values, torch.stack([mean_C, var_C])))

    def collect(self) -> None:
        """Bring the numbers of a forward pass to the CPU, all layers' at once."""
        if not self._pending:
            return
        # To the CPU first: MPS knows no float64.
        numbers = torch.cat([moments_2C for _, _, moments_2C in self._pending], dim=1).cpu().double()
        start = 0
        for name, num_values, moments_2C in self._pending:
            mean_C, var_C = numbers[:, start : start + moments_2C.shape[1]]
            self._moments[name] = self._moments[name].merged(Moments(num_values, mean_C, var_C))
            start += len(mean_C)
        self._pending.clear()

    def of_all(self, ranks: Ranks) -> dict[str, Moments]:
        """Return the moments over all ranks, the same on each; without the layers that nothing has reached."""
        pooled = {name: _of_all(moments, ranks) for name, moments in self._moments.items()}
        return {name: moments for name, moments in pooled.items() if moments.num_values}


@contextmanager
def measuring_inputs(layers: Mapping[str, nn.Module], num_channels: Mapping[str, int]) -> Iterator[MomentsMeter]:
    """Measure the inputs of layers during the block; call the meter's ``collect`` after each forward pass."""
    meter = MomentsMeter(num_channels)
    handles = [layer.register_forward_pre_hook(_measurer(meter, name)) for name, layer in layers.items()]
    try:
        yield meter
    finally:
        for handle in handles:
            handle.remove()


def _measurer(meter: MomentsMeter, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return the hook that measures the first argument of a layer's forward pass."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        meter.measure(name, inputs[0])

    return hook


def _no_values(num_channels: int) -> Moments:
    nothing_C = torch.zeros(num_channels, dtype=torch.float64)
    return Moments(0, nothing_C, nothing_C)


def _of_all(moments: Moments, ranks: Ranks) -> Moments:
    num_values, mean_C, var_C = moments
    gathered_WN = ranks.gather(torch.cat([torch.tensor([num_values], dtype=torch.float64), mean_C, var_C]))
    return reduce(
        Moments.merged, (Moments(float(gathered_N[0]), *gathered_N[1:].chunk(2)) for gathered_N in gathered_WN)
    )


_KINDS = (BatchNorm, nn.SyncBatchNorm, SynchronizedBatchNorm)


@dataclass(frozen=True)
class BatchNormStatistics:
    """Running means and variances of a network's BatchNorm layers, apart from the network.

    Parameters
    ----------
    buffers : mapping of str to tensor (C,), float32, on the CPU
        By their names in the network's ``state_dict``; only means and variances. Empty for a network without
        BatchNorm layers that keep statistics.
    num_images : int
        Images they were estimated from; 0 where they were only read off.
    """

    buffers: Mapping[str, Tensor]
    num_images: int

    @property
    def is_empty(self) -> bool:
        """Whether the network has nothing to estimate."""
        return not self.buffers

    def apply(self, model: nn.Module) -> None:
        """Write the statistics into a network's buffers, in place.

        Raises
        ------
        RunError
            If the network has no such buffers; nothing is written then.
        """
        own = dict(model.named_buffers())
        strange = [name for name, value in self.buffers.items() if name not in own or own[name].shape != value.shape]
        if strange:
            raise RunError(
                f"BatchNorm statistics of another network: {len(strange)} of {len(self.buffers)} do not fit, first "
                f"{strange[0]}"
            )
        with torch.no_grad():
            for name, value in self.buffers.items():
                own[name].copy_(value)


def running_statistics(model: nn.Module) -> BatchNormStatistics:
    """Return a copy of the statistics that a network has now."""
    buffers = dict(model.named_buffers())
    names = [name for layer in _tracking_layers(model) for name in _buffer_names(layer)]
    return BatchNormStatistics({name: buffers[name].detach().cpu().clone() for name in names}, num_images=0)


@contextmanager
def applied(statistics: BatchNormStatistics, model: nn.Module) -> Iterator[None]:
    """Let a network have these statistics for the block; afterwards it has its own again, bit for bit."""
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
    amp: bool = False,
    channels_last: bool = True,
    max_batches: int | None = None,
    ranks: Ranks = SINGLE,
) -> BatchNormStatistics:
    """Estimate anew, exactly, the running statistics that the BatchNorm layers of `model` should have.

    All ranks must call this, with their own rows of the same number of batches; the result is the same on each.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`; normalised images in, logits out. It is in eval mode meanwhile, BatchNorm alone normalises by
        batch. Parameters, buffers and modes are left as they are.
    batches : iterable of Batch
        Training images without augmentation, shuffled. Rows whose mask is False are left out, and so is a batch of a
        single image. The iterator is closed at the end.
    normalization, device, amp, channels_last, ranks
        As in training: the network's normalisation, where it runs, mixed precision, memory format, and processes.
    max_batches : int, optional
        Take no more than these, at least 1. A few thousand images are plenty (arXiv 2105.07576, section 3).

    Returns
    -------
    BatchNormStatistics
        Variances are unbiased, as torch keeps them. Empty where there is nothing to estimate; `batches` is then unused.

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
                with autocast(device, amp):
                    model(normalizer(to_device(images_BHWC, device)))
                meter.collect()
                num_images += num_rows
    if not num_images:
        raise RunError("BatchNorm statistics need at least one batch of two or more training images, and got none")
    return BatchNormStatistics(_buffers(meter.of_all(ranks)), num_images)


def _tracking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """BatchNorm layers with running statistics, by name; the others normalise by batch in eval mode too."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _KINDS)}
    return {name: layer for name, layer in layers.items() if layer.running_mean is not None}


def _buffer_names(layer_name: str) -> tuple[str, str]:
    prefix = f"{layer_name}." if layer_name else ""
    return f"{prefix}running_mean", f"{prefix}running_var"


@contextmanager
def _normalizing_by_batch(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put the layers in training mode for the block; what that does to their buffers is undone, the mode is not."""
    before = [(buffer, buffer.clone()) for layer in layers.values() for buffer in layer.buffers()]
    for layer in layers.values():
        layer.train()
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def _images(batches: Iterable[Batch], max_batches: int | None, ranks: Ranks) -> Iterator[tuple[Tensor, int]]:
    """Yield this rank's images of each batch of two or more, and the number of images of all ranks."""
    iterator = ranks.run_on_all(lambda: iter(batches))
    try:
        for _ in range(max_batches) if max_batches is not None else count():
            batch = ranks.run_on_all(lambda: next(iterator, None))
            if batch is None:
                return
            images_BHWC = _counted_rows(batch)
            num_rows = int(ranks.all_gather_numbers(len(images_BHWC)).sum())
            if num_rows > 1:
                yield images_BHWC, num_rows
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _counted_rows(batch: Batch) -> Tensor:
    if batch.mask_B.all():
        return batch.images_BHWC
    return batch.images_BHWC[batch.mask_B.nonzero().flatten().to(batch.images_BHWC.device)]


def _buffers(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """Return the moments as torch's layers keep them."""
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
