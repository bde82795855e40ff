"""Training that has run away: numbers of a step in, an error where they are no longer finite out.

A loss that is not finite is seen at every step, before the weights move. Weights can be spoilt all the same, by a
gradient that overflows under a finite loss; so they are looked at whenever they are about to be saved or judged. What a
run saves is therefore always finite.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leukemia_data.errors import RunError

MOST_SKIPS = 25
"""So many steps in a row without a usable gradient: the scale has then fallen to a thirty-millionth."""


class DivergenceError(RunError):
    """The numbers of a training are no longer finite; what was saved before still is."""


class SkippedSteps:
    """Counts the steps that a gradient scaler leaves out, told by a scale that has fallen.

    A few are normal: it begins with a scale that is too high, and tries higher ones now and then. Many in a row mean
    that no scale helps.
    """

    def __init__(self) -> None:
        self._scale = 0.0
        self._in_a_row = 0

    def require_few(self, scale: float, epoch: int, step: int) -> None:
        """Take in the scale at the beginning of a step.

        Raises
        ------
        DivergenceError
            If the :data:`MOST_SKIPS` steps before it were all left out.
        """
        self._in_a_row = self._in_a_row + 1 if scale < self._scale else 0
        self._scale = scale
        if self._in_a_row >= MOST_SKIPS:
            raise DivergenceError(
                f"mixed precision left out the {MOST_SKIPS} steps before epoch {epoch}, step {step}: their gradients "
                "were not finite at any scale, and the weights have not moved since"
            )


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor that holds a value that is not finite, None where all are finite.

    This waits for the device, once where all is well.
    """
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            by_device.setdefault(tensor.device, {})[name] = tensor.detach()
    return next((name for found in map(_spoilt, by_device.values()) for name in found), None)


def _spoilt(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those that are not finite, of some on the same device."""
    # A sum takes a hundredth of the time of `isfinite`. It may overflow where no value does, and that is looked at.
    sums_N = torch.stack([tensor.sum().float() for tensor in tensors.values()])
    suspects = [name for name, is_finite in zip(tensors, sums_N.isfinite().tolist(), strict=True) if not is_finite]
    return [name for name in suspects if not tensors[name].isfinite().all()]


def optimizer_tensors(state: Mapping[int, Mapping[str, object]]) -> dict[str, Tensor]:
    """Return what an optimizer remembers, by its own name and the number of the parameter."""
    return {
        f"the optimizer's {name} of parameter {number}": value
        for number, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }
