"""A running average of the weights: the network after every step in, a steadier network to judge by out.

The average moves towards the weights by ``1 - decay`` at each step (Polyak averaging with exponential weights). It
begins with the weights before the first step, which may be random, and a fixed decay near 1 would remember them for
epochs; so the decay grows with the number n of steps in the average, as ``min(decay, (1 + n) / (10 + n))``, the rule of
TensorFlow's ``ExponentialMovingAverage(num_updates)``.

Buffers are not averaged but the network's own. The running statistics of its BatchNorm layers belong to its weights,
not to the averaged ones, so that the average is judged with statistics estimated for it, see
:meth:`leukemia_models.learning.learner.Learner.validate`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from leukemia_data.errors import RunError


class WeightAverage:
    """The running average of a network's parameters.

    Parameters
    ----------
    model : torch.nn.Module
        Where it runs. It is copied, and its parameters are the average before the first step.
    decay : float
        Share of the average that stays at each step, in (0, 1), once the average is old enough.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._averaged = copy.deepcopy(model).requires_grad_(False)
        self.num_updates = 0

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        decay = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        # Not torch's AveragedModel around it: that one waits for the device at every step.
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(_detached(self._averaged), _detached(model), 0)
        self.num_updates += 1

    def network(self, model: nn.Module) -> nn.Module:
        """Return the network with the averaged parameters, and the buffers that `model` has now; always the same."""
        with torch.no_grad():
            for own, other in zip(self._averaged.buffers(), model.buffers(), strict=True):
                own.copy_(other)
        return self._averaged

    def state(self) -> dict[str, Tensor]:
        """Return the averaged parameters by the names that the network has for them; not copies."""
        return {name: parameter.detach() for name, parameter in self._averaged.named_parameters()}

    def restore(self, state: Mapping[str, Tensor], num_updates: int) -> None:
        """Go on where :meth:`state` and `num_updates` were asked; other names than parameters' are left out.

        Raises
        ------
        RunError
            If the names or shapes are not those of the network.
        """
        own = self.state()
        buffers = {name for name, _ in self._averaged.named_buffers()}
        saved = {name: value.shape for name, value in state.items() if name not in buffers}
        if {name: value.shape for name, value in own.items()} != saved:
            raise RunError("the saved average of the weights does not fit this network: was it saved by another one?")
        for name, value in own.items():
            value.copy_(state[name])
        self.num_updates = num_updates


def _detached(model: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in model.parameters()]
