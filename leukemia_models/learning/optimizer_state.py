"""What an optimizer remembers between steps, taken out for a file and put back.

The tensors go by the parameter's number in the network, whatever groups the optimizer keeps its parameters in. Rates
and penalties are not among them: those are the settings'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from leukemia_data.errors import RunError
from leukemia_models.learning.run_state import OptimizerState


def optimizer_state(optimizer: Optimizer, model: nn.Module) -> OptimizerState:
    """Return the tensors of each parameter that has any; not copies."""
    return {
        number: optimizer.state[parameter]
        for number, parameter in enumerate(model.parameters())
        if parameter in optimizer.state
    }


def optimizer_counters(optimizer: Optimizer) -> dict[str, float]:
    """Return what it counts for all parameters together; most count nothing."""
    counters = getattr(optimizer, "counters", None)
    return counters() if counters is not None else {}


def restore_optimizer(
    optimizer: Optimizer, model: nn.Module, saved: OptimizerState, counters: Mapping[str, float]
) -> None:
    """Go on where the state was taken.

    Raises
    ------
    RunError
        If it belongs to another network or optimizer.
    """
    parameters = list(model.parameters())
    if any(number >= len(parameters) or not _fits(parameters[number], own) for number, own in saved.items()):
        raise RunError("the saved optimizer state does not fit this network: was it saved by another one?")
    if counters.keys() != optimizer_counters(optimizer).keys():
        raise RunError("the saved optimizer state is that of another optimizer: go on with the run's own settings")
    _load(optimizer, parameters, saved)
    if counters:
        optimizer.set_counters(counters)  # type: ignore[attr-defined]


def _load(optimizer: Optimizer, parameters: list[nn.Parameter], saved: OptimizerState) -> None:
    number_of = {id(parameter): number for number, parameter in enumerate(parameters)}
    in_groups = [number_of[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state = {place: dict(saved[number]) for place, number in enumerate(in_groups) if number in saved}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, tensors in optimizer.state.items():
        for name, value in tensors.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # The same strides as in the uninterrupted run: other loops round differently.
                tensors[name] = torch.empty_like(parameter).copy_(value)


def _fits(parameter: nn.Parameter, tensors: Mapping[str, Any]) -> bool:
    values = (value for value in tensors.values() if isinstance(value, Tensor) and value.ndim)
    return all(value.shape == parameter.shape for value in values)
