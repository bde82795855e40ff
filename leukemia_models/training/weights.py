"""A network's weights: checked, averaged, copied from named tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from leukemia_data.errors import RunError, listed
from leukemia_models.training.run_state import TrainState

MAX_LISTED = 3


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check the floating-point values of named tensors from a file.

    Raises
    ------
    RunError
        If values are non-finite as float32, or BatchNorm variances are below 0; with the first few tensors.
    """
    non_finite = list(_counted(tensors, lambda values: ~values.isfinite()))
    if non_finite:
        raise RunError(
            f"{path} holds numbers that are not finite ({listed(non_finite, most=MAX_LISTED)}): its training has "
            "diverged or the file was made from such weights; use another file"
        )
    variances = {name: value for name, value in tensors.items() if f".{name}".endswith(".running_var")}
    negative = list(_counted(variances, lambda values: values < 0))
    if negative:
        raise RunError(
            f"{path} holds variances of BatchNorm below 0 ({listed(negative, most=MAX_LISTED)}), which no images "
            "have; use another file"
        )


def _counted(tensors: Mapping[str, Tensor], is_wrong: Callable[[Tensor], Tensor]) -> Iterator[str]:
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            count = int(is_wrong(tensor.detach().float()).sum())
            if count:
                yield f"{name}, {count:,} of {tensor.numel():,}"


class WeightAverage:
    """The running average of a network's parameters.

    Parameters
    ----------
    model : torch.nn.Module
        On its device. It is copied; its parameters are the average before the first step.
    decay : float
        Weight of the earlier average at each step, in (0, 1); less in the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._averaged = copy.deepcopy(model).requires_grad_(False)
        self.num_updates = 0

    def update(self, model: nn.Module) -> None:
        """Add the weights after a step to the average."""
        decay = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        # torch's AveragedModel would wait for the device at every step.
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(_detached(self._averaged), _detached(model), 0)
        self.num_updates += 1

    def network(self, model: nn.Module) -> nn.Module:
        """Return the same network at each call, with the averaged parameters and the present buffers of `model`."""
        with torch.no_grad():
            for own, other in zip(self._averaged.buffers(), model.buffers(), strict=True):
                own.copy_(other)
        return self._averaged

    def state(self) -> dict[str, Tensor]:
        """Return the averaged parameters by name; not copies."""
        return {name: parameter.detach() for name, parameter in self._averaged.named_parameters()}

    def restore(self, state: Mapping[str, Tensor], num_updates: int) -> None:
        """Load a saved average; buffers in `state` are ignored.

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


def evaluation_weights(training_weights: Mapping[str, Tensor], state: TrainState) -> dict[str, Tensor]:
    """Return a network's tensors, with the average instead of its parameters where the run keeps one."""
    return {**training_weights, **(state.average.tensors if state.average is not None else {})}


def copy_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy named tensors into a network.

    Parameters
    ----------
    model : torch.nn.Module
        On any device.
    tensors : mapping of str to tensor
        Its parameters and buffers. ``num_batches_tracked`` of BatchNorm may be missing, as in files of old versions of
        torch.
    path : Path
        Their file, for messages.

    Raises
    ------
    RunError
        If names, shapes or kinds of numbers differ, or :func:`require_finite` fails; nothing is copied then.
    """
    expected = model.state_dict()
    complete = {**{name: expected[name] for name in expected if name.endswith(".num_batches_tracked")}, **tensors}
    _require_same_classes(model, complete, path)
    differences = _differences(expected, complete)
    if differences:
        raise RunError(f"{path} does not fit this network: {listed(differences, most=MAX_LISTED, separator='; ')}")
    require_finite(complete, path)
    model.load_state_dict(complete)


def _require_same_classes(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise a specific error if only the last layer does not fit."""
    expected = model.state_dict()
    if tensors.keys() != expected.keys():
        return
    name, bias = list(model.named_parameters())[-1]
    layers = {key.rpartition(".")[0] for key, value in tensors.items() if value.shape != expected[key].shape}
    if layers == {name.rpartition(".")[0]} and len(tensors[name]) != len(bias):
        raise RunError(
            f"{path} is for {len(tensors[name])} classes, this network has {len(bias)} ({name}): start from weights "
            "for the same classes, or from scratch"
        )


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in found]
    unknown = [f"{name} is not in the network" for name in found if name not in expected]
    pairs = [(name, found[name], value) for name, value in expected.items() if name in found]
    shapes = [
        f"{name} is {tuple(own.shape)} instead of {tuple(other.shape)}"
        for name, own, other in pairs
        if own.shape != other.shape
    ]
    # Precision may differ.
    kinds = [
        f"{name} is {str(own.dtype).removeprefix('torch.')} instead of {str(other.dtype).removeprefix('torch.')}"
        for name, own, other in pairs
        if _kind(own) != _kind(other)
    ]
    return [*shapes, *missing, *unknown, *kinds]


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool
