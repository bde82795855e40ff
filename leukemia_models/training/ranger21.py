"""Ranger21, from pytorch_optimizer, which takes half a second to load; with a step of its own.

Source: Wright and Demeure, "Ranger21: a synergistic deep learning optimizer", arXiv 2106.13731 (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_optimizer.optimizer.ranger21 import Ranger21
from torch import Tensor
from torch.nn import functional

LOWEST_LR = 3e-5


class CountingRanger21(Ranger21):
    """Ranger21 whose counters, which are not in its ``state_dict``, can be saved and restored.

    Its step is written here, with the results of the library's: that one waits for the device for the variance of all
    parameters, and has five times as many operators.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step along the gradients, which are changed; parameters without one are left out."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = []
        for group in self.param_groups:
            self.init_group(group)
            group["step"] += 1
            groups.append((group, [parameter for parameter in group["params"] if parameter.grad is not None]))
        groups = [(group, parameters) for group, parameters in groups if parameters]
        sums = [each for group, parameters in groups for each in self._variance_sums(group, parameters)]
        num_values = sum(parameter.numel() for _, parameters in groups for parameter in parameters)
        # It stays on the device, in 64 bits as on the host; MPS has none.
        mean = (torch.stack(sums).sum() + 1.0) / num_values
        spread = (mean if mean.device.type == "mps" else mean.double()).sqrt()
        for group, parameters in groups:
            self._move(group, parameters, spread)
        self.lookahead_process_step()  # type: ignore[no-untyped-call]
        return loss

    def _variance_sums(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        """Clip the gradients adaptively, normalise them, and add their squares to the variances; return their sums."""
        gradients = _gradients(parameters)
        # By how much the gradient of each unit is above a fraction of the unit's own norm.
        most, norms = _unit_norms(parameters), _unit_norms(gradients)
        torch._foreach_clamp_min_(most, self.agc_eps)
        torch._foreach_mul_(most, self.agc_clipping_value)
        torch._foreach_clamp_min_(norms, 1e-6)
        factors = torch._foreach_div(most, norms)
        torch._foreach_clamp_max_(factors, 1.0)
        torch._foreach_mul_(gradients, factors)
        self._normalize(gradients)
        beta, variances = group["betas"][1], [self.state[parameter]["variance_ma"] for parameter in parameters]
        torch._foreach_mul_(variances, beta)
        torch._foreach_addcmul_(variances, gradients, gradients, value=1.0 - beta)
        return [each.sum() for each in torch._foreach_div(variances, self.debias(beta, group["step"]))]

    def _normalize(self, gradients: list[Tensor]) -> None:
        """Subtract the mean of each unit, and divide by the standard deviation of all."""
        of_units = [gradient for gradient in gradients if gradient.ndim > 1]
        if of_units:
            means = [gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True) for gradient in of_units]
            torch._foreach_sub_(of_units, means)
        spread = [gradient for gradient in gradients if gradient.numel() > 2]
        if spread:
            deviations = [gradient.std() for gradient in spread]
            torch._foreach_add_(deviations, 1e-8)
            torch._foreach_div_(spread, deviations)

    def _move(self, group: dict[str, Any], parameters: list[Tensor], spread: Tensor) -> None:
        """Decay the weights, draw their units to norm 1, and move them along the momentum."""
        (beta1, beta2), number, lr = group["betas"], group["step"], group["lr"]
        if not self.disable_lr_scheduler:
            lr = self.warm_down(self.warm_up_dampening(lr, number), number)
        if group["weight_decay"]:
            kept = 1.0 - group["weight_decay"] * lr * (1.0 / spread)
            torch._foreach_mul_(parameters, kept.to(parameters[0].dtype))
        self._draw_to_unit_norms(parameters, lr, group["eps"])
        states = [self.state[parameter] for parameter in parameters]
        # Positive and negative momentum change places at every step.
        names = ("grad_ma", "neg_grad_ma") if number % 2 else ("neg_grad_ma", "grad_ma")
        positive, negative = ([state[name] for state in states] for name in names)
        gradients = _gradients(parameters)
        self._normalize(gradients)
        torch._foreach_lerp_(positive, gradients, 1.0 - beta1**2)
        momenta = torch._foreach_mul(positive, 1.0 + self.beta0)
        torch._foreach_add_(momenta, negative, alpha=-self.beta0)
        torch._foreach_mul_(momenta, 1.0 / math.sqrt((1.0 + self.beta0) ** 2 + self.beta0**2))
        largest = [state["max_variance_ma"] for state in states]
        torch._foreach_maximum_(largest, [state["variance_ma"] for state in states])
        deviations = torch._foreach_sqrt(largest)
        torch._foreach_div_(deviations, math.sqrt(self.debias(beta2, number)))
        torch._foreach_add_(deviations, group["eps"])
        smooth = [functional.softplus(each, beta=self.beta_softplus) for each in deviations]
        torch._foreach_addcdiv_(parameters, momenta, smooth, value=-lr / self.debias(beta1, number))

    def _draw_to_unit_norms(self, parameters: list[Tensor], lr: float, eps: float) -> None:
        excess = _unit_norms(parameters)
        torch._foreach_add_(excess, eps)
        torch._foreach_reciprocal_(excess)
        torch._foreach_neg_(excess)
        torch._foreach_add_(excess, 1.0)
        torch._foreach_mul_(excess, 2.0 * self.norm_loss_factor)
        torch._foreach_mul_(excess, lr)
        torch._foreach_neg_(excess)
        torch._foreach_add_(excess, 1.0)
        torch._foreach_mul_(parameters, excess)

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


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _unit_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the norms of each tensor's units: of rows, of filters, or of the whole for vectors."""
    vectors = [tensor for tensor in tensors if tensor.ndim <= 1]
    of_vectors = iter(torch._foreach_norm(vectors) if vectors else ())
    return [next(of_vectors) if tensor.ndim <= 1 else _norms_of_rows(tensor) for tensor in tensors]


def _norms_of_rows(tensor: Tensor) -> Tensor:
    dims = 1 if tensor.ndim <= 3 else tuple(range(1, tensor.ndim))
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
    return norms


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
