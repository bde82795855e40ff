"""BatchNorm over all ranks, and its running statistics over micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from leukemia_models.devices.distributed import Ranks

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


@contextmanager
def synchronized_batchnorm(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Replace the BatchNorm layers inside `model` for the block, so that they normalise over all ranks.

    `model` must be on its device. With one rank nothing is done.
    """
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, BatchNorm) and ranks.world_size > 1
    ]
    for parent, name, child in places:
        parent.add_module(name, SynchronizedBatchNorm(child, ranks))
    try:
        yield
    finally:
        for parent, name, child in places:
            child.train(parent.get_submodule(name).training)
            parent.add_module(name, child)


class SynchronizedBatchNorm(nn.Module):
    """A BatchNorm layer that normalises by the moments over all ranks; in eval mode as `layer` does.

    Ranks may have different numbers of rows, or none. Each sends its moments in float64 whatever its rows are computed
    in, and on CUDA the host does not wait for those of the others: torch's SyncBatchNorm sends them in the type of the
    input where a rank has no rows, and waits in every layer to leave such ranks out.

    Parameters
    ----------
    layer : torch.nn.BatchNorm1d, 2d or 3d
        Its parameters and buffers are shared, not copied.
    ranks : Ranks
        Every rank must call forward and backward equally often, in the same order.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, layer: BatchNorm, ranks: Ranks) -> None:
        super().__init__()
        self.eps, self.momentum, self.ranks = layer.eps, layer.momentum, ranks
        self.register_parameter("weight", layer.weight)
        self.register_parameter("bias", layer.bias)
        self.register_buffer("running_mean", layer.running_mean)
        self.register_buffer("running_var", layer.running_var)
        self.register_buffer("num_batches_tracked", layer.num_batches_tracked)
        self.train(layer.training)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (B,C) or (B,C,...) by the moments over all ranks, or in eval mode by the running ones."""
        if not self.training:
            use_batch = self.running_mean is None
            return functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, use_batch, 0.0, self.eps
            )
        output, mean_C, var_C, count = _Normalize.apply(features, self.weight, self.bias, self.eps, self.ranks)
        self._track(mean_C, var_C * count / (count - 1))
        return cast(Tensor, output)

    @torch.no_grad()
    def _track(self, mean_C: Tensor, unbiased_var_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        step = self.num_batches_tracked.double().reciprocal() if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - step).add_(step * mean_C)
        self.running_var.mul_(1 - step).add_(step * unbiased_var_C)


class _Normalize(torch.autograd.Function):
    """(features (B,C,...), weight (C,), bias (C,)) -> (output, mean (C,), biased variance (C,), number of values)."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context takes any attribute
        features: Tensor,
        weight_C: Tensor | None,
        bias_C: Tensor | None,
        eps: float,
        ranks: Ranks,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_C, var_C, count = _global_moments(features, ranks)
        ctx.ranks, ctx.eps, ctx.count = ranks, eps, count
        ctx.save_for_backward(features, weight_C, mean_C.float(), var_C.float())
        output = functional.batch_norm(features, mean_C.float(), var_C.float(), weight_C, bias_C, False, 0.0, eps)
        ctx.mark_non_differentiable(mean_C, var_C, count)
        return output, mean_C, var_C, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the gradients: of the features by all ranks' losses, of weight and bias by this rank's rows."""
        features, weight_C, mean_C, var_C = ctx.saved_tensors
        scale_C = torch.ones_like(mean_C) if weight_C is None else weight_C
        # The gradient for constant mean and variance, and the sums over the rows.
        grad, grad_weight_C, grad_bias_C = _backward_with_constant_moments(
            grad_output, features, scale_C, mean_C, var_C, ctx.eps
        )
        sums = ctx.ranks.sum(torch.cat([grad_weight_C, grad_bias_C]).double())
        along_C, level_C = (sums / ctx.count).float().chunk(2)
        # The terms through the mean and the variance (Ioffe and Szegedy 2015, section 3).
        inverse_std_C = (var_C + ctx.eps).rsqrt()
        centred = features - _per_channel(mean_C, features)
        grad = torch.addcmul(grad, centred, _per_channel(-scale_C * along_C * inverse_std_C.square(), features))
        grad -= _per_channel(scale_C * inverse_std_C * level_C, features)
        return grad, None if weight_C is None else grad_weight_C, None if weight_C is None else grad_bias_C, None, None


def _global_moments(features: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), biased variance (C,) and number of values per channel over all ranks, in float64.

    Moments of the ranks are merged as in Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979).
    """
    channels = features.shape[1]
    local = torch.zeros(1 + 2 * channels, dtype=torch.float64, device=features.device)
    if features.numel():
        local[0] = features.numel() // channels
        # The sums that nn.BatchNorm2d computes. On the CPU those of 16-bit numbers would have 16 bits.
        exact = features.float() if features.device.type == "cpu" else features
        local[1:] = torch.cat(torch.batch_norm_update_stats(exact, None, None, 0.0))
    counts_W1, means_WC, variances_WC = torch.split(ranks.gather(local), [1, channels, channels], dim=1)
    count = counts_W1.sum()
    # On a GPU this would wait; a step has at least two samples.
    if count.device.type == "cpu" and count < 2:
        raise ValueError(f"BatchNorm needs more than one value per channel in training, got shape {features.shape}")
    fractions_W1 = counts_W1 / count
    mean_C = (fractions_W1 * means_WC).sum(dim=0)
    var_C = (fractions_W1 * (variances_WC + (means_WC - mean_C).square())).sum(dim=0)
    return mean_C, var_C, count


def _backward_with_constant_moments(
    grad_output: Tensor, features: Tensor, scale_C: Tensor, mean_C: Tensor, var_C: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    if not features.numel():
        return torch.zeros_like(features), torch.zeros_like(scale_C), torch.zeros_like(scale_C)
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        grad_output, features, scale_C, mean_C, var_C, None, None, False, eps, [True, True, True]
    )
    return gradients


def _per_channel(values_C: Tensor, features: Tensor) -> Tensor:
    return values_C.view(1, -1, *[1] * (features.ndim - 2))


BATCHNORM_LAYERS = (BatchNorm, nn.SyncBatchNorm, SynchronizedBatchNorm)


class MicroBatchStatistics:
    """Updates a network's running statistics once a step, by the mean over its micro-batches.

    Ranks whose layers are not synchronised keep statistics of their own. Those of the run are their mean at any time,
    because they are linear in the moments of the batches, and :meth:`average` computes it when it is needed.

    Parameters
    ----------
    model : torch.nn.Module
        On its device, with its BatchNorm layers synchronised already if `synchronized`.
    ranks : Ranks
        Every rank must take the same steps.
    micro_batches_per_rank : int
        At least 1.
    synchronized : bool
        Whether the layers normalise over all ranks.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, micro_batches_per_rank: int, *, synchronized: bool) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, BATCHNORM_LAYERS)]
        tracking = [layer for layer in self._layers if layer.running_mean is not None]
        self._buffers = [layer.get_buffer(name) for layer in tracking for name in ("running_mean", "running_var")]
        self._counters = [layer.get_buffer("num_batches_tracked") for layer in tracking]
        self._momenta = [layer.momentum for layer in tracking]
        self._ranks, self._micro_batches_per_rank = ranks, micro_batches_per_rank
        self._is_synchronized = synchronized or ranks.world_size == 1
        # With one micro-batch a step the layers alone suffice.
        self._is_idle = not tracking or micro_batches_per_rank == 1
        self._are_equal = True
        self._num_with_rows = 0
        if not self._is_idle:
            self._before, self._sums, self._counters_before = (
                [torch.empty_like(tensor) for tensor in tensors]
                for tensors in (self._buffers, self._buffers, self._counters)
            )

    @contextmanager
    def of_step(self, share_with_rows: float = 1.0) -> Iterator[None]:
        """Context of a step, around its micro-batches, each within :meth:`of_micro_batch`.

        `share_with_rows` is the share of all ranks' micro-batches that have rows. The others count as the mean of the
        statistics before the step.
        """
        self._are_equal = self._is_synchronized
        self._num_with_rows = 0
        is_plain = self._is_synchronized or share_with_rows == 1
        weighing = nullcontext() if is_plain else self._weighing_before(share_with_rows)
        with weighing, self._averaging_micro_batches():
            yield

    @contextmanager
    def _averaging_micro_batches(self) -> Iterator[None]:
        if self._is_idle:
            yield
            return
        torch._foreach_copy_(self._before, self._buffers)
        torch._foreach_zero_(self._sums)
        torch._foreach_copy_(self._counters_before, self._counters)
        yield
        torch._foreach_div_(self._sums, self._micro_batches_per_rank)
        torch._foreach_copy_(self._buffers, self._sums)
        torch._foreach_add_(self._counters_before, 1)
        torch._foreach_copy_(self._counters, self._counters_before)

    @contextmanager
    def _weighing_before(self, share_with_rows: float) -> Iterator[None]:
        """Give the statistics before the block the same weight in those after it on every rank.

        Otherwise ranks with fewer rows would keep more of their own, and the mean would not be that of the run; with it
        no rank needs those of the others.
        """
        before = [buffer.clone() for buffer in self._buffers]
        yield
        more = self._num_with_rows / self._micro_batches_per_rank - share_with_rows
        pairs = zip(self._buffers, before, strict=True)
        for momentum, counter in zip(self._momenta, self._counters, strict=True):
            # Without a momentum torch averages over the batches.
            factor = more / counter if momentum is None else more * momentum
            for buffer, value in islice(pairs, 2):  # of each layer
                buffer.add_(value * factor)

    @contextmanager
    def of_micro_batch(self, num_rows: int) -> Iterator[None]:
        """Context of the forward and backward pass of a micro-batch, from the statistics before the step."""
        self._num_with_rows += num_rows > 0
        has_no_moments = num_rows == 0 and (self._ranks.world_size == 1 or not self._is_synchronized)
        was_training = [layer.training for layer in self._layers]
        for layer in self._layers:
            layer.train(layer.training and not has_no_moments)
        try:
            yield
        finally:
            for layer, training in zip(self._layers, was_training, strict=True):
                layer.train(training)
        if self._is_idle:
            if has_no_moments and self._counters:
                torch._foreach_add_(self._counters, 1)
        else:
            # Not before the backward pass, which refuses buffers written after the forward pass.
            torch._foreach_add_(self._sums, self._buffers)
            torch._foreach_copy_(self._buffers, self._before)

    def average(self) -> None:
        """Replace the statistics of each rank by their mean over the ranks, which must all call this."""
        if self._are_equal or not self._buffers:
            return
        flat = self._ranks.mean(torch.cat(self._buffers))
        torch._foreach_copy_(self._buffers, list(torch.split(flat, [len(buffer) for buffer in self._buffers])))
        self._are_equal = True
