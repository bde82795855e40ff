"""Checkpoints of another run are refused with every difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leukemia_data.errors import RunError
from leukemia_models.devices.normalization import Normalization
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo
from leukemia_models.training.checkpoint_match import differences, require_same_network, require_same_run
from leukemia_models.training.history import EarlyStopping, TrainHistory
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import PrecisionChange, TrainSettings, TrainState
from leukemia_models.training.schedules import ScheduleSettings

INFO = CheckpointInfo(
    model_name="resnet18",
    classes=("hem", "all"),
    size_px=128,
    normalization=Normalization((0.1, 0.1, 0.1), (0.2, 0.2, 0.2)),
    recipe={"name": "raw", "steps": []},
    data_fingerprint="ab" * 32,
    split_kind="subject",
    settings=TrainSettings(epochs=3),
    details={"batch_size": 64, "split_seed": 0, "augmentation": {"flip": {"p": 0.5}}, "sampling": "uniform"},
)


def checkpoint_of(info: CheckpointInfo) -> Checkpoint:
    return Checkpoint(Path("last.safetensors"), info, TrainState(TrainHistory(), None), {})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_name": "resnet50"}, "--model: resnet50 instead of resnet18"),
        ({"classes": ("all", "hem")}, "classes: all, hem instead of hem, all"),
        ({"size_px": 224}, "--size: 224 instead of 128"),
        ({"recipe": {"name": "report-a", "steps": []}}, "--recipe: report-a instead of raw"),
        ({"recipe": {"name": "raw", "steps": [{"crop": 3}]}}, "--recipe: other steps of the same name, raw"),
        ({"split_kind": "image"}, "--split: image instead of subject"),
        (
            {"normalization": Normalization((0.1, 0.3, 0.1), (0.2, 0.2, 0.2))},
            "--normalize, mean: 0.1, 0.3, 0.1 instead of 0.1, 0.1, 0.1",
        ),
        ({"settings": TrainSettings(epochs=3, sync_batchnorm=True)}, "--sync-batchnorm: True instead of False"),
        ({"settings": TrainSettings(epochs=3, sizes=((64, 2), (128, 1)))}, "--sizes: 64:2,128 instead of none"),
        ({"settings": TrainSettings(epochs=3, clip_norm=1.0)}, "--clip-norm: 1 instead of none"),
        (
            {"settings": TrainSettings(epochs=3, optimizer=OptimizerSettings(lr=0.1))},
            "--lr: 0.1 instead of 0.005",
        ),
        (
            {"settings": TrainSettings(epochs=3, schedule=ScheduleSettings(name="constant"))},
            "--schedule: constant instead of cosine",
        ),
        (
            {"settings": TrainSettings(epochs=3, optimizer=OptimizerSettings(nesterov=True))},
            "optimizer nesterov: True instead of False",
        ),
        ({"details": {**INFO.details, "batch_size": 32}}, "--batch-size: 32 instead of 64"),
        ({"details": {**INFO.details, "augmentation": {"flip": {"p": 1.0}}}}, "--augment flip p: 1 instead of 0.5"),
    ],
)
def test_each_difference_is_named_as_its_option(change: dict, expected: str) -> None:
    assert differences(replace(INFO, **change), INFO) == [expected]


def test_fingerprints_are_shortened_to_one_line() -> None:
    (text,) = differences(replace(INFO, data_fingerprint="cd" * 32), INFO)
    assert text.startswith("fingerprint of the cache: cdcd")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": TrainSettings(epochs=9)},
        {"settings": TrainSettings(epochs=3, accumulate=2)},
        {"judging": {"checkpoint": "best"}},
        {"details": {"batch_size": 64}},
        {"details": {**INFO.details, "of_a_later_version": 1}},
    ],
)
def test_what_may_differ_does(change: dict) -> None:
    require_same_run(checkpoint_of(replace(INFO, **change)), INFO)
    assert differences(replace(INFO, **change), INFO) == []


def test_going_on_lists_all_differences_at_once() -> None:
    stopping = TrainSettings(epochs=3, early_stopping=EarlyStopping(patience_epochs=3))
    other = replace(INFO, model_name="resnet50", size_px=224, classes=("all", "hem"), settings=stopping)
    with pytest.raises(RunError, match=r"last\.safetensors is of another run") as raised:
        require_same_run(checkpoint_of(other), INFO)
    for words in ("--model: resnet50", "--size: 224", "classes: all, hem", "--early-stopping"):
        assert words in str(raised.value)


def test_a_start_may_have_another_size_recipe_and_classes_but_not_another_network() -> None:
    other = replace(INFO, size_px=224, recipe={"name": "report-a"}, data_fingerprint="", classes=("a", "b", "c"))
    require_same_network(checkpoint_of(other), "resnet18")
    with pytest.raises(RunError, match="--model: resnet18 instead of resnet18-no-maxpool"):
        require_same_network(checkpoint_of(other), "resnet18-no-maxpool")


def test_another_precision_is_that_of_another_run_unless_a_recorded_change_explains_it() -> None:
    change = PrecisionChange(after_epochs=1, from_precision="bf16", to_precision="fp32")
    in_16_bits = replace(INFO, settings=TrainSettings(epochs=3, precision="bf16"))
    changed = replace(INFO, settings=TrainSettings(epochs=3, precision_changes=(change,)))
    assert differences(in_16_bits, INFO) == ["--precision: bf16 instead of fp32"]
    assert differences(in_16_bits, changed) == []
    assert differences(changed, changed) == []
    other = replace(INFO, settings=TrainSettings(epochs=3, precision="fp16"))
    assert differences(other, changed) == ["--precision: fp16 instead of fp32"]
    assert differences(changed, in_16_bits) == ["--precision: fp32 instead of bf16"]
    # Changed twice, and the earlier change was another one.
    back = PrecisionChange(after_epochs=2, from_precision="fp32", to_precision="bf16")
    later = replace(INFO, settings=TrainSettings(epochs=3, precision="bf16", precision_changes=(change, back)))
    assert differences(changed, later) == []
    strange = replace(INFO, settings=replace(later.settings, precision_changes=(replace(change, after_epochs=0), back)))
    assert differences(changed, strange) == ["--precision: fp32 instead of bf16"]
