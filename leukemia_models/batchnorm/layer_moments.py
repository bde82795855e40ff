"""Exact moments of what reaches layers of a network: forward passes in, mean and variance per layer and channel out.

The values of all passes and all ranks count alike, as if they had come in one huge batch. Sums are merged in float64
about each batch's own mean (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979): no difference of large sums of squares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from leukemia_models.inference.ranks import Ranks


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
        own_share, share = self.num_values / num_values, other.num_values / num_values
        step_C = other.mean_C - self.mean_C
        mean_C = self.mean_C + share * step_C
        return Moments(num_values, mean_C, own_share * (self.var_C + share * step_C.square()) + share * other.var_C)


class MomentsMeter:
    """Pools the moments of layers' inputs: on the device during a forward pass, on the CPU between two.

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
    """Let a meter see what reaches the layers during the block; call its ``collect`` after each forward pass."""
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
    told_WN = ranks.gather(torch.cat([torch.tensor([num_values], dtype=torch.float64), mean_C, var_C]))
    return reduce(Moments.merged, (Moments(float(told_N[0]), *told_N[1:].chunk(2)) for told_N in told_WN))
