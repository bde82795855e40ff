"""BatchNorm statistics estimated anew: a network and clean training images in, running means and variances out.

While a network learns, the running statistics of its BatchNorm layers are an exponential average over the last few
dozen steps: of weights that have moved since, and of augmented images. In eval mode the network then normalises by
numbers that belong to another network. Here they are measured for the weights as they are, on training images without
augmentation ("precise BN": Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576). Images that are to be
judged must never be among them.

The network comes back bit for bit as it was. The statistics are a value, and using them is a step of its own.

Every layer is given the exact mean and variance of all the values that reach it: the mean of the batches' variances,
which a cumulative average (``momentum=None``) gives, leaves out how much the batches' means differ, and so changes with
the batch size. What reaches a layer still depends on the batches a little, for the layers before it normalise by batch
meanwhile: they should be shuffled, and about as large as in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_data.samples.arguments import as_whole
from leukemia_data.streams.batch import to_device
from leukemia_models.batchnorm.layer_moments import Moments, measuring_inputs
from leukemia_models.batchnorm.sync_batchnorm import BatchNorm, SynchronizedBatchNorm, synchronized_batchnorm
from leukemia_models.inference.batch_source import Batch
from leukemia_models.inference.normalization import Normalization, Normalizer
from leukemia_models.inference.precision import autocast
from leukemia_models.inference.predict import evaluating
from leukemia_models.inference.ranks import SINGLE, Ranks

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
    """Measure what the BatchNorm layers of `model` should have as running statistics.

    Parameters
    ----------
    model : torch.nn.Module
        On `device`; normalised images in, logits out. Its layers are in eval mode meanwhile, BatchNorm alone normalises
        by batch. Parameters, buffers and modes are left as they are.
    batches : iterable of Batch
        Training images without augmentation, shuffled. Rows whose mask is False are left out, and so is a batch that
        has a single image then. With several ranks, this one's shares of the same number of batches. The iterator is
        closed at the end.
    normalization : Normalization
        What the network was trained with.
    device : torch.device
        Where it runs.
    amp : bool
        Mixed precision, on CUDA only.
    channels_last : bool
        Memory format of the network's weights.
    max_batches : int, optional
        Take no more than these, at least 1. A few thousand images are plenty (arXiv 2105.07576, section 3).
    ranks : Ranks
        All of them must call this; each layer is given the moments of all ranks' images.

    Returns
    -------
    BatchNormStatistics
        The same on every rank. Variances are unbiased, as torch keeps them. Empty, and `batches` is not touched, where
        there is nothing to estimate.

    Raises
    ------
    UsageError
        If `max_batches` is below 1.
    RunError
        If there is no batch of two or more images, or what reaches a layer is not finite.
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
            for images_BHWC, num_rows in _shares(batches, max_batches, ranks):
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


def _shares(batches: Iterable[Batch], max_batches: int | None, ranks: Ranks) -> Iterator[tuple[Tensor, int]]:
    """Yield this rank's images of each batch that can be normalised, and the number of images of all ranks."""
    iterator = ranks.together(lambda: iter(batches))
    try:
        for _ in range(max_batches) if max_batches is not None else count():
            batch = ranks.together(lambda: next(iterator, None))
            if batch is None:
                return
            images_BHWC = _counted_rows(batch)
            num_rows = int(ranks.exchange(len(images_BHWC)).sum())
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
                f"what reaches the BatchNorm layer {name} is not finite: the network's weights have overflowed; train "
                "again with a lower learning rate"
            )
        buffers |= zip(_buffer_names(name), (mean_C.float(), unbiased_C.float()), strict=True)
    return buffers
