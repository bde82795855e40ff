"""Running statistics when a batch is worked through in shares that BatchNorm sees one at a time.

Shares are those of several ranks without synchronised BatchNorm, those that one rank takes one after the other, or
both. Each is normalised by its own mean and variance. The running statistics move once a step: by the mean over all
shares of what each alone would have made of them, whichever rank had it, and whether it held a sample or not. So they
are the same on every rank, and do not depend on how the shares are spread over ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leukemia_models.batchnorm.sync_batchnorm import BatchNorm, SynchronizedBatchNorm
from leukemia_models.inference.ranks import Ranks

_KINDS = (BatchNorm, nn.SyncBatchNorm, SynchronizedBatchNorm)


class ShareStatistics:
    """Keeps a network's running statistics together over the shares of a step.

    Parameters
    ----------
    model : torch.nn.Module
        Where it runs, with its BatchNorm layers already synchronised if they are to be.
    ranks : Ranks
        Every rank must take the same steps.
    shares_per_rank : int
        At least 1.
    synchronized : bool
        Whether the layers see the shares of all ranks at once.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, shares_per_rank: int, *, synchronized: bool) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, _KINDS)]
        tracking = [layer for layer in self._layers if layer.running_mean is not None]
        self._buffers = [layer.get_buffer(name) for layer in tracking for name in ("running_mean", "running_var")]
        self._counters = [layer.get_buffer("num_batches_tracked") for layer in tracking]
        self._ranks, self._shares_per_rank = ranks, shares_per_rank
        self._is_synchronized = synchronized or ranks.world_size == 1
        # One share a step, or one that all ranks see as a whole: the layers do all that is needed.
        self._is_idle = not tracking or (shares_per_rank == 1 and self._is_synchronized)

    @contextmanager
    def of_step(self) -> Iterator[None]:
        """Around all shares of a step, each of them within :meth:`of_share`."""
        if self._is_idle:
            yield
            return
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]
        counters = [counter.clone() for counter in self._counters]
        yield
        _copy(self._buffers, self._mean())
        _copy(self._counters, [counter + 1 for counter in counters])

    @contextmanager
    def of_share(self, num_rows: int) -> Iterator[None]:
        """Around the forward and the backward pass of one share, which begins with the statistics before the step."""
        has_no_moments = num_rows == 0 and (self._ranks.world_size == 1 or not self._is_synchronized)
        was_training = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.train(layer.training and not has_no_moments)
        try:
            yield
        finally:
            for layer, training in zip(self._layers, was_training, strict=True):
                layer.train(training)
        if not self._is_idle:
            # Only now: the backward pass refuses buffers that were written after the forward pass.
            torch._foreach_add_(self._sums, self._buffers)
            _copy(self._buffers, self._before)

    def _mean(self) -> list[Tensor]:
        torch._foreach_div_(self._sums, self._shares_per_rank)
        if self._is_synchronized:
            return self._sums
        flat = self._ranks.mean(torch.cat(self._sums))
        return list(torch.split(flat, [len(buffer) for buffer in self._buffers]))


def _copy(targets: list[Tensor], values: list[Tensor]) -> None:
    torch._foreach_copy_(targets, values)
