"""Ranger21, from pytorch_optimizer, which takes half a second to load: only when an optimizer of it is built.

Source: Wright and Demeure, "Ranger21: a synergistic deep learning optimizer", arXiv 2106.13731 (2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_optimizer.optimizer.ranger21 import Ranger21

LOWEST_LR = 3e-5


class CountingRanger21(Ranger21):
    """Ranger21 whose counters can be read and set, for a run that goes on from a file.

    Beside a few tensors per parameter it keeps how many steps it has taken, which its own schedule and the correction
    of its averages depend on, and how many since it last looked back.
    """

    @property
    def rate_in_use(self) -> float:
        """The learning rate of the last step."""
        return float(self.param_groups[0]["lr"] if self.disable_lr_scheduler else self.current_lr)

    def counters(self) -> dict[str, float]:
        """Return the state that is not in tensors, as JSON can hold it."""
        return {
            "step": self.param_groups[0].get("step", 0),
            "lookahead_step": self.lookahead_step,
            "current_lr": self.current_lr,
        }

    def set_counters(self, counters: Mapping[str, float]) -> None:
        """Go on where :meth:`counters` was asked."""
        for group in self.param_groups:
            group["step"] = int(counters["step"])
        self.lookahead_step = int(counters["lookahead_step"])
        self.current_lr = float(counters["current_lr"])


def build_ranger21(
    groups: Sequence[dict[str, Any]],
    num_steps: int,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    inner_schedule: bool,
) -> CountingRanger21:
    """Return Ranger21 over some groups of parameters.

    Parameters
    ----------
    groups : sequence of dict
        As torch's optimizers take them.
    num_steps : int
        Of the whole run. Its own schedule warms up over 2 / (1 - betas[1]) steps, or 22 % of the run where that would
        be too long, and cools down over the last 28 %.
    lr, betas, eps, weight_decay, inner_schedule
        See :class:`~leukemia_models.training.optimizers.OptimizerSettings`.
    """
    return CountingRanger21(
        list(groups),
        num_iterations=max(num_steps, 1),
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        disable_lr_scheduler=not inner_schedule,
        # The default alone would let the rate of runs that never go as high rise at the end.
        warm_down_min_lr=min(LOWEST_LR, lr),
    )
