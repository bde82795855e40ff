"""Checkpoints: a network, all that is needed to use it, and where its training stands, in one safetensors file.

Layout
------
Tensors ``model.<name>`` are the network's parameters and buffers; ``optimizer.<parameter number>.<name>`` are the
optimizer's, in checkpoints that a run can go on from. The header's metadata holds ``format``, ``format_version``,
``digest`` (XXH3-128 over the tensors) and ``content``, a JSON object with everything else. Nothing is pickled: reading
a checkpoint runs no code, and any safetensors reader opens it. Version 2 added ``progress``, the position inside an
epoch.

A file is written under another name and then moved into place, so a checkpoint is the old one or the new one, whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from leukemia_data.atomic import atomic_path
from leukemia_data.errors import RunError
from leukemia_data.fingerprint import bytes_digest, canonical_json
from leukemia_models.history import EpochRecord, TrainHistory
from leukemia_models.normalization import Normalization
from leukemia_models.registry import build_model
from leukemia_models.run_state import EpochProgress, TrainSettings, TrainState

FORMAT = "leukemia-cells checkpoint"
FORMAT_VERSION = 2
READABLE_VERSIONS = ("1", "2")
MODEL_PREFIX = "model."
OPTIMIZER_PREFIX = "optimizer."
MAX_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a network must be fed and what it answers, and what it learnt from.

    Parameters
    ----------
    model_name : str
        One of :data:`~leukemia_models.registry.MODEL_NAMES`.
    classes : tuple of str
        Name of each label.
    size_px : int
        Side of the images it was trained on.
    normalization : Normalization
        Of its training split.
    recipe : mapping
        The preprocessing recipe as JSON values, so that raw images can be put through the same.
    data_fingerprint : str
        Identity of the cache it was trained from.
    split_kind : str
        Name of the split, such as ``subject`` or ``image``.
    settings : TrainSettings
        Of the run.
    details : mapping
        Whatever else the run wants to find again, as JSON values.
    """

    model_name: str
    classes: tuple[str, ...]
    size_px: int
    normalization: Normalization
    recipe: Mapping[str, Any]
    data_fingerprint: str
    split_kind: str
    settings: TrainSettings
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            **vars(self),
            "normalization": self.normalization.to_dict(),
            "settings": self.settings.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointInfo:
        """Return what :meth:`to_dict` wrote, after a way through JSON."""
        return cls(
            **{
                **values,
                "classes": tuple(values["classes"]),
                "normalization": Normalization.of(**values["normalization"]),
                "settings": TrainSettings.from_dict(values["settings"]),
            }
        )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU.

    Parameters
    ----------
    path : Path
        Where it was read.
    info : CheckpointInfo
        What the network is.
    state : TrainState
        Where its training stood; ``optimizer_state`` is None in a checkpoint for judging only.
    model_state : mapping of str to tensor
        The network's parameters and buffers.
    """

    path: Path
    info: CheckpointInfo
    state: TrainState
    model_state: Mapping[str, Tensor]

    def build_model(self) -> nn.Module:
        """Return the network with its weights, on the CPU, in training mode.

        Raises
        ------
        RunError
            If the tensors are not those of the network the checkpoint names.
        """
        model = build_model(self.info.model_name, len(self.info.classes))
        load_weights(model, self)
        return model


def save_checkpoint(
    path: Path, model: nn.Module, info: CheckpointInfo, state: TrainState, *, resumable: bool = True
) -> None:
    """Write a checkpoint, replacing `path` in one step when it is whole and on disk.

    Parameters
    ----------
    path : Path
        In a directory that exists.
    model : torch.nn.Module
        On any device, in any memory format.
    info, state
        What goes with it.
    resumable : bool
        False leaves out the optimizer's tensors: half the size, for judging only.
    """
    tensors = {MODEL_PREFIX + name: _plain(value) for name, value in model.state_dict().items()}
    optimizer_values: dict[str, Any] | None = None
    if resumable and state.optimizer_state is not None:
        optimizer_tensors, optimizer_values = _flatten(state.optimizer_state)
        tensors |= optimizer_tensors
    content = {
        "info": info.to_dict(),
        "epochs_done": state.epochs_done,
        "best_epoch": state.history.best.epoch if state.history.best else None,
        "history": [record.to_dict() for record in state.history.records],
        "optimizer_values": optimizer_values,
        "scaler_state": dict(state.scaler_state) if resumable else {},
        "progress": state.progress.to_dict() if resumable and state.progress else None,
    }
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "digest": _digest(tensors),
        "content": canonical_json(content).decode("ascii"),
    }
    with atomic_path(path) as partial:
        # Not its `save_file`: that leaves a file of its own behind when killed, and one that only the owner may read.
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check it whole.

    Raises
    ------
    RunError
        If the file is missing, damaged, something else, or of a later format.
    """
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise RunError(f"{path} is no checkpoint of this project: its header does not say {FORMAT!r}")
    if metadata.get("format_version") not in READABLE_VERSIONS:
        raise RunError(
            f"{path} has checkpoint format {metadata.get('format_version')}, this version reads "
            f"{' and '.join(READABLE_VERSIONS)}: use the version of the program that wrote it"
        )
    if metadata.get("digest") != _digest(tensors):
        raise RunError(f"{path} is damaged: its tensors do not match their digest; use another checkpoint of the run")
    try:
        content = json.loads(metadata["content"])
        return _from_content(path, content, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: its description cannot be read ({error!r})") from error


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's tensors into `model`.

    Raises
    ------
    RunError
        If names or shapes differ; the first few differences are listed and nothing is copied.
    """
    differences = _differences(model.state_dict(), checkpoint.model_state)
    if differences:
        listed = "; ".join(differences[:MAX_LISTED])
        more = f"; and {len(differences) - MAX_LISTED} more" if len(differences) > MAX_LISTED else ""
        raise RunError(f"{checkpoint.path} does not fit this network: {listed}{more}")
    model.load_state_dict(checkpoint.model_state)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _flatten(optimizer_state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
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


def _unflatten(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Undo :func:`_flatten`."""
    state: dict[int, dict[str, Any]] = {}
    named = _without_prefix(tensors, OPTIMIZER_PREFIX)
    for key, value in [*named.items(), *values.items()]:
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    return dict(sorted(state.items()))


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the XXH3-128 of the digests of all tensors with their names, types and shapes."""
    lines = [
        f"{name} {value.dtype} {tuple(value.shape)} {bytes_digest(value.reshape(-1).view(torch.uint8).numpy()).hex()}"
        for name, value in sorted(tensors.items())
    ]
    return bytes_digest("\n".join(lines).encode("utf-8")).hex()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}: name a run's folder that holds one")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copies: tensors that map the file would keep Windows from replacing it.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise RunError(
            f"{path} cannot be read as a checkpoint: {error}; it is damaged or another kind of file"
        ) from error


def _from_content(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    values = content["optimizer_values"]
    history = TrainHistory(tuple(EpochRecord(**record) for record in content["history"]))
    # Version 1 knew no positions inside an epoch.
    progress = EpochProgress(**content["progress"]) if content.get("progress") else None
    optimizer_state = None if values is None else _unflatten(tensors, values)
    state = TrainState(history, optimizer_state, content["scaler_state"], progress)
    info = CheckpointInfo.from_dict(content["info"])
    return Checkpoint(path, info, state, _without_prefix(tensors, MODEL_PREFIX))


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in found]
    unknown = [f"{name} is not in the network" for name in found if name not in expected]
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    return [*shapes, *missing, *unknown]
