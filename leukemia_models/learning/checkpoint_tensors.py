"""The tensors of a checkpoint by name: a network's, an optimizer's and an average's, put together and taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leukemia_data.samples.fingerprint import bytes_digest

MODEL_PREFIX = "model."
OPTIMIZER_PREFIX = "optimizer."
AVERAGE_PREFIX = "average."


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU, as any reader expects them, with a prefix to their names."""
    return {prefix + name: _plain(value) for name, value in tensors.items()}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def flatten(optimizer_state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into named tensors and the values JSON can hold."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for number, entries in optimizer_state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER_PREFIX}{number}.{name}"] = _plain(value)
            else:
                values[f"{number}.{name}"] = value
    return tensors, values


def unflatten(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Undo :func:`flatten`."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*without_prefix(tensors, OPTIMIZER_PREFIX).items(), *values.items()]:
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    return dict(sorted(state.items()))


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors with a prefix to their names, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the XXH3-128 of the digests of all tensors with their names, types and shapes."""
    lines = [
        f"{name} {value.dtype} {tuple(value.shape)} {bytes_digest(value.reshape(-1).view(torch.uint8).numpy()).hex()}"
        for name, value in sorted(tensors.items())
    ]
    return bytes_digest("\n".join(lines).encode("utf-8")).hex()
