from __future__ import annotations

import json
from typing import Any

import pytest

from leukemia_data.errors import UsageError
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import EpochProgress, PrecisionChange, TrainSettings
from leukemia_models.training.schedules import ScheduleSettings

from ..small_training import epoch_record

EVERYTHING = TrainSettings(
    epochs=30,
    optimizer=OptimizerSettings(name="adamw", betas=(0.8, 0.9), decay_norm_and_bias=False),
    schedule=ScheduleSettings(name="step", step_fractions=(0.2, 0.4), warmup_epochs=2),
    num_classes=3,
    seed=7,
    compile=True,
    clip_norm=1.5,
    label_smoothing=0.1,
    class_weights=(1.0, 0.5, 2.0),
    early_stopping=EarlyStopping(patience_epochs=5, metric="loss"),
    ema_decay=0.99,
    precision="bf16",
    precision_changes=(PrecisionChange(after_epochs=2, from_precision="fp16", to_precision="bf16"),),
    sizes=((64, 10), (128, 20)),
)


@pytest.mark.parametrize("settings", [EVERYTHING, TrainSettings(epochs=1)])
def test_settings_survive_json(settings: TrainSettings) -> None:
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_settings_of_the_first_versions_are_read(name: str) -> None:
    values = {
        "epochs": 3,
        "optimizer": {
            "lr": 0.02,
            "momentum": 0.8,
            "weight_decay": 0.001,
            "schedule": name,
            "warmup_epochs": 0.5,
            "step_fractions": [0.3, 0.6],
            "step_factor": 0.2,
        },
        "num_classes": 2,
        "seed": 3,
        "amp": True,
        "channels_last": False,
    }
    steps = {"step_fractions": (0.3, 0.6), "step_factor": 0.2} if name == "step" else {}
    assert TrainSettings.from_dict(values) == TrainSettings(
        epochs=3,
        optimizer=OptimizerSettings(lr=0.02, momentum=0.8, weight_decay=0.001),
        schedule=ScheduleSettings(name=name, warmup_epochs=0.5, **steps),
        seed=3,
        precision="amp",
        cudnn_benchmark=False,
        fused=False,
        channels_last=False,
        sync_batchnorm=True,
    )


def test_progress_of_the_first_versions_is_read() -> None:
    values = {
        "steps_done": 3,
        "lr": 0.1,
        "loss_sum": 2.0,
        "num_correct": 4,
        "num_samples": 9,
        "wait_s": 0,
        "train_s": 1,
    }
    assert EpochProgress.from_dict(values).weight_sum == 9
    progress = EpochProgress(steps_done=3, weight_sum=2.5, num_samples=9)
    assert EpochProgress.from_dict(progress.to_dict()) == progress


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"accumulate": "2"}, "accumulate must be a whole number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"label_smoothing": "0.1"}, "label_smoothing must be"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"fused": True, "precision": "fp16"}, "fused updates cannot skip steps as fp16 must"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"class_weights": (1.0,)}, "class_weights must be one number for each of 2"),
        ({"class_weights": (1.0, 0.0)}, "class_weights"),
        ({"schedule": ScheduleSettings(warmup_epochs=4)}, "warm-up"),
        ({"schedule": ScheduleSettings(min_lr=0.1)}, "min_lr"),
    ],
)
def test_bad_settings_name_the_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        TrainSettings(**{"epochs": 3, **changes})


def test_what_watches_the_validation_needs_it() -> None:
    TrainSettings(epochs=3).require_validation(False)
    stopping = TrainSettings(epochs=3, early_stopping=EarlyStopping(patience_epochs=1))
    plateau = TrainSettings(epochs=3, schedule=ScheduleSettings(name="plateau"))
    for settings, name in ((stopping, "early stopping"), (plateau, "schedule plateau")):
        settings.require_validation(True)
        with pytest.raises(UsageError, match=f"{name} watches the validation part"):
            settings.require_validation(False)


def test_run_is_over_by_its_length_or_early() -> None:
    settings = TrainSettings(epochs=4, early_stopping=EarlyStopping(patience_epochs=2, metric="loss"))
    records = [epoch_record(epoch, valid_loss=loss) for epoch, loss in enumerate((3.0, 2.0, 2.0, 2.0), start=1)]
    assert [settings.stops_after(records[:count]) for count in range(5)] == [False, False, False, False, True]
    assert not settings.stopped_early(records)
    shorter = TrainSettings(epochs=9, early_stopping=EarlyStopping(patience_epochs=1, metric="loss"))
    assert [shorter.stops_after(records[:count]) for count in range(5)] == [False, False, False, True, True]
    assert [shorter.stopped_early(records[:count]) for count in range(5)] == [False, False, False, True, True]


def test_trial_of_a_long_run_has_all_its_parts() -> None:
    trial = EVERYTHING.with_epochs_scaled(0.1)
    assert (trial.epochs, trial.schedule.warmup_epochs, trial.early_stopping.patience_epochs) == (3, 0.2, 1)
    assert TrainSettings(epochs=550).with_epochs_scaled(0.02).epochs == 11
    assert TrainSettings(epochs=1).with_epochs_scaled(0.02).epochs == 1
