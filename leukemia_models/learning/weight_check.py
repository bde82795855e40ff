"""Can these tensors be a network's weights? Tensors and their file's name in, an error with the tensor's name out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from leukemia_data.errors import RunError, listed

MAX_LISTED = 3
_VARIANCE = ".running_var"
_Wrong = Callable[[Tensor], Tensor]


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors with values that are not finite, as float32, and BatchNorm variances below 0.

    Parameters
    ----------
    tensors : mapping of str to tensor
        By name; those of whole numbers and truth values are passed over.
    path : Path
        Where they were read, for the message.

    Raises
    ------
    RunError
        With the first few tensors, and how many of their values are wrong.
    """
    spoilt = list(_counted(tensors, lambda values: ~values.isfinite()))
    if spoilt:
        raise RunError(
            f"{path} holds numbers that are not finite ({listed(spoilt, most=MAX_LISTED)}): its training has "
            "diverged or the file was made from such weights; use another file"
        )
    variances = {name: value for name, value in tensors.items() if f".{name}".endswith(_VARIANCE)}
    negative = list(_counted(variances, lambda values: values < 0))
    if negative:
        raise RunError(
            f"{path} holds variances of BatchNorm below 0 ({listed(negative, most=MAX_LISTED)}), which no images "
            "have; use another file"
        )


def kind_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return in words where one has whole or complex numbers and the other has floats; precision may differ."""
    return [
        f"{name} is {_type(found[name])} instead of {_type(value)}"
        for name, value in expected.items()
        if name in found and _kind(found[name]) != _kind(value)
    ]


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _counted(tensors: Mapping[str, Tensor], is_wrong: _Wrong) -> Iterator[str]:
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            count = int(is_wrong(tensor.detach().float()).sum())
            if count:
                yield f"{name}, {count:,} of {tensor.numel():,}"
