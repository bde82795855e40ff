"""Compatibility of checkpoints: differences between two descriptions, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from leukemia_data.errors import RunError
from leukemia_data.records.fingerprint import canonical_json
from leukemia_data.scanning.frame_notes import FRAMES_DETAIL
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo
from leukemia_models.training.image_sizes import sizes_text

_MAX_LETTERS = 60
_NO_DIFFERENCE = (
    "judging",
    "settings.epochs",
    "settings.extensions",
    "settings.precision_changes",
    "settings.accumulate",
    f"details.{FRAMES_DETAIL}",
)
"""Length and hardware of a run may change, evaluation is decided after training, and a cache that is built again may
have other notes on the same frames."""
_SPLIT_DIGEST = "details.split_digest"
_OPTIONS = {
    "settings": (
        "seed",
        "precision",
        "tf32",
        "compile",
        "clip_norm",
        "label_smoothing",
        "class_weights",
        "early_stopping",
    ),
    "settings.optimizer": ("lr", "momentum", "weight_decay"),
    "details": ("split_seed", "batch_size", "sampling", "start", "positive"),
}
_NAMED: Mapping[str, str] = MappingProxyType(
    {
        "model_name": "--model",
        "size_px": "--size",
        "split_kind": "--split",
        "data_fingerprint": "fingerprint of the cache",
        "normalization.mean": "--normalize, mean",
        "normalization.std": "--normalize, std",
        "settings.num_classes": "number of classes",
        "settings.optimizer.name": "--optimizer",
        "settings.optimizer": "optimizer",
        "settings.schedule.name": "--schedule",
        "settings.schedule.warmup_epochs": "--warmup-epochs",
        "settings.schedule": "schedule",
        "settings.ema_decay": "--ema",
        "settings.sync_batchnorm": "--sync-batchnorm",
        "settings.sizes": "--sizes",
        "details.augmentation": "--augment",
        **{f"{at}.{name}": f"--{name.replace('_', '-')}" for at, names in _OPTIONS.items() for name in names},
    }
)
"""Names for messages; the longest prefix of a value's place applies."""


def differences(found: CheckpointInfo, expected: CheckpointInfo) -> list[str]:
    """Return the differences that prevent resuming, such as ``--size: 128 instead of 224``.

    Details that only one of the two has are ignored, since earlier versions have fewer.
    """
    one, other = (json.loads(canonical_json(info.to_dict())) for info in (found, expected))
    _explain_precision(one["settings"], other["settings"])
    for side in (one, other):
        _forget_length(side["settings"])
    recipes = _recipe_difference(one.pop("recipe"), other.pop("recipe"))
    common = one["details"].keys() & other["details"].keys()
    for side in (one, other):
        side["details"] = {name: side["details"][name] for name in sorted(common)}
    return [*recipes, *_value_differences(dict(_flat(one)), dict(_flat(other)))]


def _explain_precision(found: dict[str, Any], expected: Mapping[str, Any]) -> None:
    """Take over the expected precision if the run was changed to it after the checkpoint `found`."""
    earlier, changes = found["precision_changes"] or [], expected["precision_changes"] or []
    later = changes[len(earlier) :]
    if later and changes[: len(earlier)] == earlier and later[0]["from_precision"] == found["precision"]:
        found["precision"] = expected["precision"]


def _forget_length(settings: dict[str, Any]) -> None:
    """Replace progressive sizes by a text without the epochs at the last one, which follow the run's length."""
    if settings.get("sizes"):
        settings["sizes"] = sizes_text(settings["sizes"]).rpartition(":")[0]


def require_same_run(checkpoint: Checkpoint, expected: CheckpointInfo) -> None:
    """Raise RunError, with all differences, unless a checkpoint is of the expected run."""
    found = differences(checkpoint.info, expected)
    if found:
        raise RunError(
            f"{checkpoint.path} is of another run than the settings beside it: {'; '.join(found)}. Put the run's own "
            "checkpoint back, or start a new run"
        )


def require_same_network(checkpoint: Checkpoint, model_name: str) -> None:
    """Raise RunError unless a checkpoint has this network; classes, size, recipe and normalization may differ."""
    own = checkpoint.info.model_name
    if own != model_name:
        raise RunError(
            f"{checkpoint.path} does not fit this run: --model: {_text(own)} instead of {_text(model_name)}. Start "
            "from weights of the same network, or from scratch"
        )


def _recipe_difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    own, other = found.get("name"), expected.get("name")
    if own != other:
        return [f"--recipe: {_text(own)} instead of {_text(other)}"]
    return [] if found == expected else [f"--recipe: other steps of the same name, {_text(own)}"]


def _value_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for place in dict.fromkeys([*expected, *found]):
        if found.get(place) == expected.get(place) or place.startswith(_NO_DIFFERENCE):
            continue
        if place == _SPLIT_DIGEST:
            yield "samples of the split: split.csv, or the cache, was changed after the training"
        else:
            yield f"{_name(place)}: {_text(found.get(place))} instead of {_text(expected.get(place))}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _name(place: str) -> str:
    words = place.split(".")
    for length in range(len(words), 0, -1):
        named = _NAMED.get(".".join(words[:length]))
        if named is not None:
            return " ".join([named, *words[length:]])
    return words[-1]


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_LETTERS else f"{text[:_MAX_LETTERS]}..."
