"""A checkpoint's file: metadata and tensors by name, what its weights have seen, and its size."""

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

_LENGTH_BYTES = 8


def read_safetensors(path: Path, data: bytes | None = None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a file.

    Parameters
    ----------
    path : Path
        The file; with `data` only its name, for messages.
    data : bytes, optional
        What the file holds, where another machine has read it.

    Raises
    ------
    RunError
        If it is missing, or no such file.
    """
    if data is None:
        return read_part(path, "")
    try:
        # First, because it checks the header as well.
        tensors = safetensors.torch.load(data)
        return _metadata(data), tensors
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_part(path: Path, prefix: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a file's metadata, and those of its tensors whose names begin with `prefix`.

    Raises
    ------
    RunError
        If it is missing, or no such file.
    """
    _require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - no mapping
            # Copies: tensors that map the file would keep Windows from replacing it.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} cannot be read as a checkpoint: {error}; it is damaged or another kind of file")


def checkpoint_bytes(path: Path) -> bytes:
    """Return what a checkpoint's file holds, unchecked, to be handed to :func:`read_safetensors` on other machines.

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
    """The header's metadata, which safetensors reads from files only."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = parse_json(data[_LENGTH_BYTES : _LENGTH_BYTES + length].decode("utf-8"))
    metadata: dict[str, str] | None = header.get("__metadata__")
    return metadata or {}


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


SEEN_PREFIX = "seen."
_DTYPES = {name: np.int8 if name in LOOK_COLUMNS else np.int64 for name in COLUMNS}


def seen_tensors(seen: SeenSamples) -> dict[str, Tensor]:
    """Return keys of shape (k,), int64, and looks of shape (k, 64), int8, of all sources by their names in the file."""
    return {
        f"{SEEN_PREFIX}{number}.{name}": torch.from_numpy(column.view(_DTYPES[name]).copy())
        for number, source in enumerate(seen.sources)
        for name in COLUMNS
        if len(column := getattr(source, name))
    }


def seen_description(seen: SeenSamples) -> dict[str, Any]:
    """Return all but the keys as JSON can hold it."""
    namings = [
        {"source": source.naming.source, "subjects_from": source.naming.subjects_from} for source in seen.sources
    ]
    return {"is_complete": seen.is_complete, "sources": namings}


def read_seen(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SeenSamples:
    """Undo :func:`seen_tensors` and :func:`seen_description`.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is something else, as in a damaged file.
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
"""More than the JSON and the names of any network here; a history of a thousand epochs has 400 kB."""


@dataclass(frozen=True, slots=True)
class CheckpointRoom:
    """Bytes that a run's checkpoints take.

    Attributes
    ----------
    resumable_bytes
        Of one to go on from.
    evaluation_bytes
        Of one for evaluation only.
    """

    resumable_bytes: int
    evaluation_bytes: int

    @property
    def kept_bytes(self) -> int:
        """Of all three together in the end: ``last``, ``best`` and ``final``."""
        return self.resumable_bytes + 2 * self.evaluation_bytes

    @property
    def max_bytes(self) -> int:
        """The same at its largest: a checkpoint is whole before it takes the place of the one before."""
        return self.kept_bytes + self.resumable_bytes


def checkpoint_room(model: nn.Module, settings: TrainSettings) -> CheckpointRoom:
    """Return how many bytes the checkpoints of a run take.

    Parameters
    ----------
    model : torch.nn.Module
        On any device, the meta device included.
    settings : TrainSettings
        Of the run.
    """
    parameters = sum(value.numel() * value.element_size() for value in model.parameters())
    buffers = sum(value.numel() * value.element_size() for value in model.buffers())
    evaluation = parameters + buffers + _DESCRIPTION_BYTES
    copies = settings.optimizer.num_buffers + (settings.ema_decay is not None)
    return CheckpointRoom(evaluation + copies * parameters, evaluation)
