"""Ranger21, from pytorch_optimizer, which takes half a second to load.

Source: Wright and Demeure, "Ranger21: a synergistic deep learning optimizer", arXiv 2106.13731 (2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_optimizer.optimizer.ranger21 import Ranger21

LOWEST_LR = 3e-5


class CountingRanger21(Ranger21):
    """Ranger21 whose counters, which are not in its ``state_dict``, can be saved and restored."""

    @property
    def rate_in_use(self) -> float:
        """The learning rate of the last step."""
        return float(self.param_groups[0]["lr"] if self.disable_lr_scheduler else self.current_lr)

    def counters(self) -> dict[str, float]:
        """Return the number of steps, that since the last lookahead, and the learning rate, as JSON values."""
        return {
            "step": self.param_groups[0].get("step", 0),
            "lookahead_step": self.lookahead_step,
            "current_lr": self.current_lr,
        }

    def set_counters(self, counters: Mapping[str, float]) -> None:
        """Restore what :meth:`counters` returned."""
        for group in self.param_groups:
            group["step"] = int(counters["step"])
        self.lookahead_step = int(counters["lookahead_step"])
        self.current_lr = float(counters["current_lr"])


def build_ranger21(
    groups: Sequence[dict[str, Any]],
    num_steps: int,
    *,
    lr: float,
    inner_schedule: bool,
    **options: Any,  # noqa: ANN401 - as pytorch_optimizer has them
) -> CountingRanger21:
    """Return Ranger21 over groups of parameters.

    Parameters
    ----------
    groups : sequence of dict
        As torch's optimizers take them.
    num_steps : int
        Steps of the whole run. The inner schedule warms up over 2 / (1 - betas[1]) steps, at most 22 % of the run, and
        cools down over the last 28 %.
    lr, inner_schedule, **options
        As in :class:`~leukemia_models.training.optimizers.OptimizerSettings`.
    """
    return CountingRanger21(
        list(groups),
        num_iterations=max(num_steps, 1),
        lr=lr,
        disable_lr_scheduler=not inner_schedule,
        # The default would raise a lower learning rate at the end.
        warm_down_min_lr=min(LOWEST_LR, lr),
        **options,
    )
