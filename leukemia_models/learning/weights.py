"""A network's weights as named tensors: which of a run's to judge by, and whether they fit another network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from leukemia_data.errors import RunError, listed
from leukemia_models.learning.run_state import TrainState
from leukemia_models.learning.weight_check import kind_differences, require_finite

MAX_LISTED = 3
_COUNTER = ".num_batches_tracked"


def judged_weights(training_weights: Mapping[str, Tensor], state: TrainState) -> dict[str, Tensor]:
    """Return a network's tensors with the average in the place of its parameters, where the run keeps one."""
    return {**training_weights, **(state.average.tensors if state.average is not None else {})}


def copy_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy named tensors into a network.

    Parameters
    ----------
    model : torch.nn.Module
        On any device.
    tensors : mapping of str to tensor
        Its parameters and buffers by name. BatchNorm's counter of batches may be missing, as in files of old versions
        of torch.
    path : Path
        Where they were read, for messages.

    Raises
    ------
    RunError
        If names, shapes or kinds of numbers differ, or values are not finite (see
        :mod:`~leukemia_models.learning.weight_check`); the first few are listed and nothing is copied.
    """
    expected = model.state_dict()
    complete = {**{name: expected[name] for name in expected if name.endswith(_COUNTER)}, **tensors}
    _require_same_classes(model, complete, path)
    differences = _differences(expected, complete)
    if differences:
        raise RunError(f"{path} does not fit this network: {listed(differences, most=MAX_LISTED, separator='; ')}")
    require_finite(complete, path)
    model.load_state_dict(complete)


def _require_same_classes(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Name the cause where nothing but the last layer does not fit."""
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
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    return [*shapes, *missing, *unknown, *kind_differences(expected, found)]
