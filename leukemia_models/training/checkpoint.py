"""Checkpoints: a network, its description and the state of its training, in one safetensors file.

Layout
------
Tensors ``model.<name>`` are the network's parameters and buffers. Checkpoints to resume from also have
``optimizer.<parameter index>.<name>`` and, where the run keeps an average of the parameters, ``average.<name>``; a
checkpoint for evaluation has the average as ``model.<name>``. The header's metadata holds ``format``,
``format_version``, ``content``, a JSON object with everything else, and two XXH3-128: ``digest`` of the tensors and
``content_digest`` of the object's text. Nothing is pickled: reading a checkpoint runs no code.

Version 2 added ``progress``, the position inside an epoch; version 3 the average, the optimizer's counters and their
settings; version 4 the object's digest; version 5 the settings of micro-batches; version 6 tensors
``seen.<source>.<column>``, the subjects and images that the weights have seen.

Files are replaced atomically.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from leukemia_data.sources.positive_class import evaluated_order
from leukemia_data.splitting.seen_samples import SeenSamples
from leukemia_models.devices.normalization import Normalization
from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint_file import (
    SEEN_PREFIX,
    flatten,
    flatten_seen,
    named,
    on_host,
    read_part,
    read_safetensors,
    tensors_digest,
    unflatten,
    unflatten_seen,
    without_prefix,
)
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.losses import optimizer_tensors
from leukemia_models.training.run_state import EpochProgress, TrainSettings, TrainState, WeightAverageState
from leukemia_models.training.weights import copy_weights, evaluation_weights, require_finite

FORMAT = "leukemia-cells checkpoint"
FORMAT_VERSION = 6
READABLE_VERSIONS = ("1", "2", "3", "4", "5", "6")
MODEL_PREFIX, AVERAGE_PREFIX = "model.", "average."
POSITIVE_DETAIL = "positive"
"""Key of the positive class among the details."""
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
    """A checkpoint could not be written, because the disk is full or has another fault."""


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Description of a network: its input, its classes, and the run that trained it.

    Parameters
    ----------
    model_name : str
        One of :func:`~leukemia_models.networks.registry.model_names`.
    classes : tuple of str
        Name of each label.
    size_px : int
        Side of the training images.
    normalization : Normalization
    recipe : mapping
        The preprocessing recipe as JSON values.
    data_fingerprint : str
        Fingerprint of the cache.
    split_kind : str
        Kind of the split, such as ``subject`` or ``image``.
    settings : TrainSettings
    details : mapping
        Further JSON values of the run; ``positive`` is its positive class.
    judging : mapping or None
        How the network is evaluated, as JSON values: test-time augmentation, BatchNorm statistics, temperature and
        threshold, see :mod:`leukemia_models.runs.finalize`. None before the end of the run.
    seen : SeenSamples or None
        The subjects and images that the weights were trained on and chosen by, in earlier runs too. None in files of
        earlier versions.
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
        """Whether the run recorded its positive class, or can have none; earlier versions did not."""
        return POSITIVE_DETAIL in self.details or len(self.classes) > 2

    @property
    def positive(self) -> str | None:
        """The class of two whose recall is the sensitivity, the last one where none was recorded; None of more."""
        return None if len(self.classes) > 2 else str(self.details.get(POSITIVE_DETAIL, self.classes[-1]))

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        """The negative and the positive class, in this order; more than two as they are."""
        return evaluated_order(self.classes, self.positive)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but `seen` as JSON values."""
        return {
            **{name: value for name, value in vars(self).items() if name != "seen"},
            "normalization": self.normalization.to_dict(),
            "settings": self.settings.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CheckpointInfo:
        """Return the description that :meth:`to_dict` wrote, also after JSON; raise ValueError for wrong values."""
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
        Its file.
    info : CheckpointInfo
    state : TrainState
        ``optimizer_state`` is None in a checkpoint for evaluation only.
    training_weights : mapping of str to tensor
        Parameters and buffers to resume from.
    """

    path: Path
    info: CheckpointInfo
    state: TrainState
    training_weights: Mapping[str, Tensor]

    @property
    def model_state(self) -> dict[str, Tensor]:
        """Parameters and buffers to evaluate: with the average of the weights, where the run keeps one."""
        return evaluation_weights(self.training_weights, self.state)

    def build_model(self) -> nn.Module:
        """Return the network with the weights to evaluate, on the CPU, in training mode.

        Raises
        ------
        RunError
            If the tensors do not fit the network that the checkpoint names.
        """
        model = build_model(self.info.model_name, len(self.info.classes))
        load_weights(model, self)
        return model


@dataclass(frozen=True)
class CheckpointSnapshot:
    """The tensors and the description of a checkpoint, which later steps do not change.

    Parameters
    ----------
    tensors : mapping of str to tensor
        On the CPU, by their names in the file.
    content : mapping
        The description as JSON values, but for the seen samples.
    seen : SeenSamples or None
    """

    tensors: Mapping[str, Tensor]
    content: Mapping[str, Any]
    seen: SeenSamples | None

    def write(self, path: Path) -> None:
        """Write the checkpoint atomically.

        Raises
        ------
        NotSavedError
            If it cannot be written; an earlier file at `path` is left unchanged.
        """
        tensors, seen = {name: value.contiguous() for name, value in self.tensors.items()}, None
        if self.seen is not None:
            seen_tensors, seen = flatten_seen(self.seen)
            tensors |= seen_tensors
        text = canonical_json({**self.content, "seen": seen}).decode("ascii")
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "digest": tensors_digest(tensors),
            "content_digest": _text_digest(text),
            "content": text,
        }
        # Not safetensors' `save_file`: its temporary file stays when it is killed, and only the owner may read its
        # file.
        data = safetensors.torch.save(tensors, metadata)
        try:
            with atomic_path(path) as partial:
                partial.write_bytes(data)
        except OSError as error:
            raise NotSavedError(_not_saved(path, len(data), error)) from error


def snapshot_checkpoint(
    model: nn.Module, info: CheckpointInfo, state: TrainState, *, resumable: bool = True
) -> CheckpointSnapshot:
    """Copy what a checkpoint holds to the CPU, so that it can be written while the training goes on.

    Parameters
    ----------
    model : torch.nn.Module
        On any device, in any memory format.
    info, state
        Its description, and the state of its training.
    resumable : bool
        False omits the optimizer's tensors, and all weights but those to evaluate.
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
    content = {**_content(info, state, resumable=resumable), "optimizer_values": optimizer_values}
    return CheckpointSnapshot(on_host(tensors), content, info.seen)


def save_checkpoint(
    path: Path, model: nn.Module, info: CheckpointInfo, state: TrainState, *, resumable: bool = True
) -> None:
    """Write a checkpoint atomically into a directory that exists; see :func:`snapshot_checkpoint`.

    Raises
    ------
    NotSavedError
        If it cannot be written; an earlier file at `path` is left unchanged.
    """
    snapshot_checkpoint(model, info, state, resumable=resumable).write(path)


def _content(info: CheckpointInfo, state: TrainState, *, resumable: bool) -> dict[str, Any]:
    average = state.average if resumable else None
    return {
        "info": info.to_dict(),
        "epochs_done": state.epochs_done,
        "best_epoch": state.history.best.epoch if state.history.best else None,
        "history": [record.to_dict() for record in state.history.records],
        "scaler_state": dict(state.scaler_state) if resumable else {},
        "progress": state.progress.to_dict() if resumable and state.progress else None,
        "optimizer_counters": dict(state.optimizer_counters) if resumable else {},
        "average_updates": None if average is None else average.num_updates,
    }


def _not_saved(path: Path, num_bytes: int, error: OSError) -> str:
    free = free_disk_bytes(path.parent)
    room = "" if free is None else f", and {free / 1e6:,.1f} MB are free"
    kept = f"; the earlier {path.name} is still whole" if path.is_file() else ""
    cure = "free space on the disk" if is_disk_full(error) else "check the disk"
    need = f"it needs {num_bytes / 1e6:,.1f} MB{room}{kept}"
    return f"{path} could not be saved: {error.strerror or error}; {need}; {cure}"


def load_checkpoint(path: Path, data: bytes | None = None) -> Checkpoint:
    """Read a checkpoint and check its digests.

    Parameters
    ----------
    path : Path
    data : bytes, optional
        The content of the file, where another machine has read it.

    Raises
    ------
    RunError
        If the file is missing, damaged, not a checkpoint, or of a later format.
    """
    return checkpoint_of(path, *read_safetensors(path, data))


def load_info(path: Path) -> CheckpointInfo | None:
    """Read a checkpoint's description without its tensors; None for a safetensors file of another program.

    Raises
    ------
    RunError
        If the file is missing, not a safetensors file, or a checkpoint that is damaged or of a later format.
    """
    metadata, tensors = read_part(path, SEEN_PREFIX)
    if metadata.get("format") != FORMAT:
        return None
    _require_readable(path, metadata)
    with _reading_description(path):
        return _info_of(parse_json(metadata["content"]), tensors)


def _info_of(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CheckpointInfo:
    seen = content.get("seen")
    info = CheckpointInfo.from_dict(content["info"])
    return info if seen is None else replace(info, seen=unflatten_seen(tensors, seen))


def checkpoint_of(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Checkpoint:
    """Return the checkpoint that a file's metadata and tensors hold; raises as :func:`load_checkpoint`."""
    _require_readable(path, metadata)
    if metadata.get("digest") != tensors_digest(tensors):
        raise RunError(f"{path} is damaged: its tensors do not match their digest; use another checkpoint of the run")
    with _reading_description(path):
        return _from_content(path, parse_json(metadata["content"]), tensors)


@contextmanager
def _reading_description(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{path} is damaged: its description cannot be read ({error!r})") from error


def _require_readable(path: Path, metadata: Mapping[str, str]) -> None:
    version, digest = metadata.get("format_version"), metadata.get("content_digest")
    if metadata.get("format") != FORMAT:
        raise RunError(f"{path} is not a checkpoint of this project: its header does not say {FORMAT!r}")
    if version not in READABLE_VERSIONS:
        raise RunError(
            f"{path} has checkpoint format {version}, this version reads formats {READABLE_VERSIONS[0]} to "
            f"{READABLE_VERSIONS[-1]}: use the version of the program that wrote it"
        )
    if digest is None and version in READABLE_VERSIONS[:3]:
        return
    if digest != _text_digest(metadata.get("content", "")):
        raise RunError(
            f"{path} is damaged: its description does not match its digest; use another checkpoint of the run"
        )


def _text_digest(text: str) -> str:
    return bytes_digest(text.encode("utf-8", "surrogatepass")).hex()


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights for evaluation into `model`; errors as in ``weights.copy_weights``."""
    copy_weights(model, checkpoint.model_state, checkpoint.path)


def load_training_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into `model`, to resume its run; errors as in ``weights.copy_weights``."""
    require_trainable(checkpoint)
    copy_weights(model, checkpoint.training_weights, checkpoint.path)


def require_trainable(checkpoint: Checkpoint) -> None:
    """Raise RunError if the network, the average or the optimizer has non-finite values."""
    state = checkpoint.state
    average = state.average.tensors if state.average is not None else {}
    tensors = {**checkpoint.training_weights, **{f"average of {name}": value for name, value in average.items()}}
    require_finite({**tensors, **optimizer_tensors(state.optimizer_state or {})}, checkpoint.path)


def _from_content(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    values = content["optimizer_values"]
    history = TrainHistory(tuple(EpochRecord.from_dict(record) for record in content["history"]))
    # Version 1 has no positions inside an epoch.
    progress = EpochProgress.from_dict(content["progress"]) if content.get("progress") else None
    optimizer_state = None if values is None else unflatten(tensors, values)
    updates = content.get("average_updates")
    average = None if updates is None else WeightAverageState(without_prefix(tensors, AVERAGE_PREFIX), updates)
    state = TrainState(
        history, optimizer_state, content["scaler_state"], progress, content.get("optimizer_counters", {}), average
    )
    return Checkpoint(path, _info_of(content, tensors), state, without_prefix(tensors, MODEL_PREFIX))
