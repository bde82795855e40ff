"""The file of a checkpoint: metadata, named tensors, seen samples, and its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_data.files.documents import parse_json
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.records.near_looks import LOOK_VALUES
from leukemia_data.splitting.seen_samples import COLUMNS, LOOK_COLUMNS, Keys, Looks, Naming, SeenSamples, SeenSource
from leukemia_models.training.run_state import TrainSettings


def read_safetensors(path: Path, data: bytes | None = None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file.

    Parameters
    ----------
    path : Path
        The file; with `data` only for messages.
    data : bytes, optional
        The content of the file, where another machine has read it.

    Raises
    ------
    RunError
        If it is missing, or not such a file.
    """
    if data is None:
        return read_part(path, "")
    try:
        # First, because it checks the header too.
        tensors = safetensors.torch.load(data)
        return _metadata(data), tensors
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_part(path: Path, prefix: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """As :func:`read_safetensors`, with the tensors whose names begin with `prefix` only."""
    _require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
            # Copies: on Windows a file cannot be replaced while tensors map it.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} cannot be read as a checkpoint: {error}; it is damaged or another kind of file")


def checkpoint_bytes(path: Path) -> bytes:
    """Return the unchecked content of a file, for :func:`read_safetensors` on other machines.

    Raises
    ------
    RunError
        If it is missing or cannot be read.
    """
    _require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}: name a run's folder that holds one")


def _metadata(data: bytes) -> dict[str, str]:
    # safetensors reads metadata from files only. The header's length is in the first 8 bytes.
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] | None = parse_json(data[8 : 8 + length].decode("utf-8")).get("__metadata__")
    return metadata or {}


OPTIMIZER_PREFIX = "optimizer."


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a prefix to their names."""
    return {prefix + name: value.detach() for name, value in tensors.items()}


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU with the same strides, which share no memory; waits for a device once."""
    copies, devices = {}, set()
    for name, value in tensors.items():
        is_cuda = value.device.type == "cuda"
        # Strides are kept: a copy to others takes ten times as long, and can be made later.
        host = torch.empty_like(value, device="cpu", pin_memory=is_cuda)
        copies[name] = host.copy_(value, non_blocking=is_cuda)
        if is_cuda:
            devices.add(value.device)
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return copies


def flatten(optimizer_state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into named tensors and JSON values."""
    entries = {f"{index}.{name}": value for index, state in optimizer_state.items() for name, value in state.items()}
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    return named(OPTIMIZER_PREFIX, tensors), {name: entries[name] for name in entries if name not in tensors}


def unflatten(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the state that :func:`flatten` split."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*without_prefix(tensors, OPTIMIZER_PREFIX).items(), *values.items()]:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return dict(sorted(state.items()))


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the XXH3-128 of the names, dtypes, shapes and digests of all tensors."""
    lines = [
        f"{name} {value.dtype} {tuple(value.shape)} {bytes_digest(value.reshape(-1).view(torch.uint8).numpy()).hex()}"
        for name, value in sorted(tensors.items())
    ]
    return bytes_digest("\n".join(lines).encode("utf-8")).hex()


SEEN_PREFIX = "seen."
_DTYPES = {name: np.int8 if name in LOOK_COLUMNS else np.int64 for name in COLUMNS}


def flatten_seen(seen: SeenSamples) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split seen samples into named tensors, keys (k,) int64 and looks (k, 64) int8, and JSON values."""
    tensors = {
        f"{SEEN_PREFIX}{number}.{name}": torch.from_numpy(column.view(_DTYPES[name]).copy())
        for number, source in enumerate(seen.sources)
        for name in COLUMNS
        if len(column := getattr(source, name))
    }
    namings = [
        {"source": source.naming.source, "subjects_from": source.naming.subjects_from} for source in seen.sources
    ]
    return tensors, {"is_complete": seen.is_complete, "sources": namings}


def unflatten_seen(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> SeenSamples:
    """Return the samples that :func:`flatten_seen` split.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the file is damaged.
    """
    is_complete = description["is_complete"]
    if not isinstance(is_complete, bool):
        raise ValueError(f"is_complete is {is_complete!r:.40}")
    sources = [_source(number, each, tensors) for number, each in enumerate(description["sources"])]
    return SeenSamples(tuple(sources), is_complete)


def _source(number: int, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SeenSource:
    names = description["source"], description["subjects_from"]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"a source is named {names!r:.60}")
    found = {name: tensors.get(f"{SEEN_PREFIX}{number}.{name}") for name in COLUMNS}
    columns: dict[str, Any] = {
        name: _looks(value) if name in LOOK_COLUMNS else _keys(value)
        for name, value in found.items()
        if value is not None
    }
    return SeenSource(Naming(*names), **columns)


def _keys(tensor: Tensor) -> Keys:
    if tensor.dtype != torch.int64 or tensor.dim() != 1:
        raise ValueError(f"keys are {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor.numpy().view(np.uint64)


def _looks(tensor: Tensor) -> Looks:
    if tensor.dtype != torch.int8 or tensor.shape[1:] != (LOOK_VALUES,):
        raise ValueError(f"looks are {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor.numpy()


_DESCRIPTION_BYTES = 1_000_000
"""Room for JSON and names; the history of a thousand epochs takes 400 kB."""


@dataclass(frozen=True, slots=True)
class CheckpointRoom:
    """Size of a checkpoint to resume from, and of one for evaluation only."""

    resumable_bytes: int
    evaluation_bytes: int

    @property
    def kept_bytes(self) -> int:
        """Size of ``last``, ``best`` and ``final`` together."""
        return self.resumable_bytes + 2 * self.evaluation_bytes

    @property
    def max_bytes(self) -> int:
        """Largest size during a run: a new checkpoint is written before it replaces the old one."""
        return self.kept_bytes + self.resumable_bytes


def checkpoint_room(model: nn.Module, settings: TrainSettings) -> CheckpointRoom:
    """Return the size of a run's checkpoints; `model` may be on the meta device."""
    parameters = sum(value.numel() * value.element_size() for value in model.parameters())
    buffers = sum(value.numel() * value.element_size() for value in model.buffers())
    evaluation = parameters + buffers + _DESCRIPTION_BYTES
    copies = settings.optimizer.num_buffers + (settings.ema_decay is not None)
    return CheckpointRoom(evaluation + copies * parameters, evaluation)
