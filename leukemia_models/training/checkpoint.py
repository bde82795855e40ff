"""Checkpoints: a network, all that is needed to use it, and where its training stands, in one safetensors file.

Layout
------
Tensors ``model.<name>`` are the network's parameters and buffers. In checkpoints that a run can go on from,
``optimizer.<parameter number>.<name>`` are the optimizer's, and ``average.<name>`` the running average of the
parameters, where the run keeps one; a checkpoint for evaluation has it as ``model.<name>``, in place of the parameters.
The header's metadata holds ``format``, ``format_version``, ``content``, a JSON object with everything else, and two
XXH3-128: ``digest`` over the tensors and ``content_digest`` over the text of the object. Nothing is pickled: reading a
checkpoint runs no code, and any safetensors reader opens it.

Version 2 added ``progress``, the position inside an epoch; version 3 the average, the optimizer's counters and the
settings that go with them; version 4 the object's digest; version 5 the settings of micro-batches; version 6 tensors
``seen.<source>.<column>``, the subjects and images that the weights have seen.

A file is written under another name and then moved into place, so a checkpoint is the old one or the new one, whole.
Beside this module: :mod:`~leukemia_models.training.checkpoint_file` reads and names tensors,
:mod:`~leukemia_models.training.checkpoint_match` compares descriptions, and :mod:`~leukemia_models.training.weights`
copies tensors into a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.documents import COUNT, OBJECT, OBJECT_OR_NONE, TEXT, TEXTS, Kind, parse_json, require_kinds
from leukemia_data.files.limits import free_disk_bytes, is_disk_full
from leukemia_data.records.fingerprint import bytes_digest, canonical_json
from leukemia_data.sources.positive_class import negative_first
from leukemia_data.splitting.seen_samples import SeenSamples
from leukemia_models.devices.normalization import Normalization
from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint_file import (
    AVERAGE_PREFIX,
    MODEL_PREFIX,
    SEEN_PREFIX,
    flatten,
    named,
    read_part,
    read_safetensors,
    read_seen,
    seen_description,
    seen_tensors,
    tensors_digest,
    unflatten,
    without_prefix,
)
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.losses import optimizer_tensors
from leukemia_models.training.run_state import EpochProgress, TrainSettings, TrainState, WeightAverageState
from leukemia_models.training.weights import copy_weights, evaluation_weights, require_finite

FORMAT = "leukemia-cells checkpoint"
FORMAT_VERSION = 6
READABLE_VERSIONS = ("1", "2", "3", "4", "5", "6")
VERSIONS_WITHOUT_CONTENT_DIGEST = READABLE_VERSIONS[:3]
POSITIVE_DETAIL = "positive"
"""Name of the positive class among the details."""


_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "model_name": TEXT,
        "classes": TEXTS,
        "size_px": COUNT,
        "recipe": OBJECT,
        "data_fingerprint": TEXT,
        "split_kind": TEXT,
        "details": OBJECT,
        "judging": OBJECT_OR_NONE,
    }
)


class NotSavedError(RunError):
    """A checkpoint could not be written, for lack of room or another fault of the disk."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a network must be fed and what it answers, and what it learnt from.

    Parameters
    ----------
    model_name : str
        One of :func:`~leukemia_models.networks.registry.model_names`.
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
        Whatever else the run wants to find again, as JSON values; ``positive`` is its positive class.
    judging : mapping or None
        How a finished run's network is evaluated, as JSON values: test-time augmentation, BatchNorm statistics,
        temperature and threshold, see :mod:`leukemia_models.runs.finalize`. None before that is decided.
    seen : SeenSamples or None
        The subjects and images that the weights were trained on and chosen by, those before this run included. None in
        files of earlier versions, which do not record it.
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
    judging: Mapping[str, Any] | None = None
    seen: SeenSamples | None = None

    @property
    def has_positive(self) -> bool:
        """Whether the run recorded its positive class, as those of earlier versions did not."""
        return POSITIVE_DETAIL in self.details

    @property
    def positive(self) -> str:
        """The class whose recall is the sensitivity; where none was recorded, the second one, as it was then."""
        return str(self.details.get(POSITIVE_DETAIL, self.classes[-1]))

    @property
    def evaluated_classes(self) -> tuple[str, str]:
        """The negative and the positive class, the order in which predictions are evaluated."""
        return negative_first(self.classes, self.positive)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but `seen` as JSON can hold them."""
        return {
            **{name: value for name, value in vars(self).items() if name != "seen"},
            "normalization": self.normalization.to_dict(),
            "settings": self.settings.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointInfo:
        """Return what :meth:`to_dict` wrote, after a way through JSON.

        Raises
        ------
        ValueError
            If a value is of another kind, as in a damaged file.
        """
        require_kinds(values, _KINDS)
        positive = values.get("details", {}).get(POSITIVE_DETAIL)
        if positive is not None and positive not in values["classes"]:
            raise ValueError(f"the positive class {positive!r} is none of the classes")
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
        Where its training stood; ``optimizer_state`` is None in a checkpoint for evaluation only.
    training_weights : mapping of str to tensor
        The network's parameters and buffers, as its training goes on from them.
    """

    path: Path
    info: CheckpointInfo
    state: TrainState
    training_weights: Mapping[str, Tensor]

    @property
    def model_state(self) -> dict[str, Tensor]:
        """The parameters and buffers to evaluate: with the average of the weights, where the run keeps one."""
        return evaluation_weights(self.training_weights, self.state)

    def build_model(self) -> nn.Module:
        """Return the network with the weights to evaluate, on the CPU, in training mode.

        A run goes on from others, where it keeps an average of its weights: see :func:`load_training_weights`.

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
        False leaves out the optimizer's tensors, and all weights but those to evaluate: half the size, for evaluation
        only.

    Raises
    ------
    NotSavedError
        If it could not be written; a file that `path` names already is as it was then.
    """
    weights = model.state_dict() if resumable else evaluation_weights(model.state_dict(), state)
    tensors = named(MODEL_PREFIX, weights)
    optimizer_values: dict[str, Any] | None = None
    if resumable and state.optimizer_state is not None:
        optimizer_tensors, optimizer_values = flatten(state.optimizer_state)
        tensors |= optimizer_tensors
    average = state.average if resumable else None
    if average is not None:
        tensors |= named(AVERAGE_PREFIX, average.tensors)
    if info.seen is not None:
        tensors |= seen_tensors(info.seen)
    text = canonical_json(_content(info, state, optimizer_values, resumable=resumable)).decode("ascii")
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "digest": tensors_digest(tensors),
        "content_digest": _text_digest(text),
        "content": text,
    }
    # Not its `save_file`: that leaves a file of its own behind when killed, and one that only the owner may read.
    data = safetensors.torch.save(tensors, metadata)
    try:
        with atomic_path(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise NotSavedError(_not_saved(path, len(data), error)) from error


def _content(
    info: CheckpointInfo, state: TrainState, optimizer_values: dict[str, Any] | None, *, resumable: bool
) -> dict[str, Any]:
    """Return all of a checkpoint that is no tensor, as JSON can hold it."""
    average = state.average if resumable else None
    return {
        "info": info.to_dict(),
        "epochs_done": state.epochs_done,
        "best_epoch": state.history.best.epoch if state.history.best else None,
        "history": [record.to_dict() for record in state.history.records],
        "optimizer_values": optimizer_values,
        "scaler_state": dict(state.scaler_state) if resumable else {},
        "progress": state.progress.to_dict() if resumable and state.progress else None,
        "optimizer_counters": dict(state.optimizer_counters) if resumable else {},
        "average_updates": None if average is None else average.num_updates,
        "seen": None if info.seen is None else seen_description(info.seen),
    }


def _not_saved(path: Path, num_bytes: int, error: OSError) -> str:
    free = free_disk_bytes(path.parent)
    room = "" if free is None else f", and {free / 1e6:,.1f} MB are free"
    kept = f"; the earlier {path.name} is still whole" if path.is_file() else ""
    cure = "make room" if is_disk_full(error) else "see to the disk"
    need = f"it needs {num_bytes / 1e6:,.1f} MB{room}{kept}"
    return f"{path} could not be saved: {error.strerror or error}; {need}; {cure}"


def load_checkpoint(path: Path, data: bytes | None = None) -> Checkpoint:
    """Read a checkpoint and check it whole.

    Parameters
    ----------
    path : Path
        The file.
    data : bytes, optional
        What it holds, where another machine has read it.

    Raises
    ------
    RunError
        If the file is missing, damaged, something else, or of a later format.
    """
    return _checkpoint_of(path, *read_safetensors(path, data))


def load_info(path: Path) -> CheckpointInfo | None:
    """Read a checkpoint's description without its tensors; None for a safetensors file from elsewhere.

    Raises
    ------
    RunError
        If the file is missing, no safetensors file, or a checkpoint that is damaged or of a later format.
    """
    metadata, tensors = read_part(path, SEEN_PREFIX)
    if metadata.get("format") != FORMAT:
        return None
    _require_readable(path, metadata)
    try:
        return _info_of(parse_json(metadata["content"]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} is damaged: its description cannot be read ({error!r})") from error


def _info_of(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CheckpointInfo:
    seen = content.get("seen")
    info = CheckpointInfo.from_dict(content["info"])
    return info if seen is None else replace(info, seen=read_seen(seen, tensors))


def _checkpoint_of(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    _require_readable(path, metadata)
    if metadata.get("digest") != tensors_digest(tensors):
        raise RunError(f"{path} is damaged: its tensors do not match their digest; use another checkpoint of the run")
    try:
        return _from_content(path, parse_json(metadata["content"]), tensors)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} is damaged: its description cannot be read ({error!r})") from error


def _require_readable(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise RunError(f"{path} is no checkpoint of this project: its header does not say {FORMAT!r}")
    if metadata.get("format_version") not in READABLE_VERSIONS:
        raise RunError(
            f"{path} has checkpoint format {metadata.get('format_version')}, this version reads formats "
            f"{READABLE_VERSIONS[0]} to {READABLE_VERSIONS[-1]}: use the version of the program that wrote it"
        )
    if not _has_own_content(metadata):
        raise RunError(
            f"{path} is damaged: its description does not match its digest; use another checkpoint of the run"
        )


def _has_own_content(metadata: Mapping[str, str]) -> bool:
    digest = metadata.get("content_digest")
    if digest is None:
        return metadata.get("format_version") in VERSIONS_WITHOUT_CONTENT_DIGEST
    return digest == _text_digest(metadata.get("content", ""))


def _text_digest(text: str) -> str:
    return bytes_digest(text.encode("utf-8", "surrogatepass")).hex()


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights for evaluation into `model`, to evaluate them or to start another training.

    Raises
    ------
    RunError
        If names or shapes differ; the first few differences are listed and nothing is copied.
    """
    copy_weights(model, checkpoint.model_state, checkpoint.path)


def load_training_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into `model`, for its own run to go on from. See :func:`load_weights`."""
    require_trainable(checkpoint)
    copy_weights(model, checkpoint.training_weights, checkpoint.path)


def require_trainable(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint to go on from that holds values that are not finite.

    Raises
    ------
    RunError
        With the first few of the network's, the average's and the optimizer's tensors that do.
    """
    state = checkpoint.state
    average = state.average.tensors if state.average is not None else {}
    tensors = {**checkpoint.training_weights, **{f"average of {name}": value for name, value in average.items()}}
    require_finite({**tensors, **optimizer_tensors(state.optimizer_state or {})}, checkpoint.path)


def load_weights_file(
    model: nn.Module, path: Path, require: Callable[[Checkpoint], None] | None = None, data: bytes | None = None
) -> None:
    """Copy the weights of a file into `model`, as the start of a training.

    Parameters
    ----------
    model : torch.nn.Module
        Of the same architecture.
    path : Path
        A checkpoint of this project, whose weights for evaluation are taken, or a safetensors file with a network's
        ``state_dict``. torchvision's ResNets have the same names.
    require : callable, optional
        Is shown a checkpoint of this project before anything is copied, and raises where it is not the right one.
    data : bytes, optional
        What the file holds, where another machine has read it.

    Raises
    ------
    RunError
        If the file cannot be read, is damaged, holds numbers that are not finite, or belongs to another network or to
        another number of classes; then nothing is copied.
    """
    metadata, tensors = read_safetensors(path, data)
    if metadata.get("format") == FORMAT:
        checkpoint = _checkpoint_of(path, metadata, tensors)
        if require is not None:
            require(checkpoint)
        load_weights(model, checkpoint)
    else:
        copy_weights(model, tensors, path)


def _from_content(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    values = content["optimizer_values"]
    history = TrainHistory(tuple(EpochRecord.from_dict(record) for record in content["history"]))
    # Version 1 knew no positions inside an epoch.
    progress = EpochProgress.from_dict(content["progress"]) if content.get("progress") else None
    optimizer_state = None if values is None else unflatten(tensors, values)
    updates = content.get("average_updates")
    average = None if updates is None else WeightAverageState(without_prefix(tensors, AVERAGE_PREFIX), updates)
    state = TrainState(
        history, optimizer_state, content["scaler_state"], progress, content.get("optimizer_counters", {}), average
    )
    return Checkpoint(path, _info_of(content, tensors), state, without_prefix(tensors, MODEL_PREFIX))
