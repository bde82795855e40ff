"""Training plans made in Python: defaults of the command line, and refused values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leukemia_data.errors import UsageError
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.training_plan import single_stage_plan, with_evaluation, with_settings


def test_defaults() -> None:
    plan = single_stage_plan()
    [stage] = plan.stages
    assert (plan.model_name, stage.settings.epochs, stage.batch_size) == ("resnet18", 30, 64)
    assert (stage.settings.optimizer.name, stage.settings.schedule.name) == ("sgd", "cosine")
    assert stage.augmentation.name == "flips"
    assert not plan.is_staged


@pytest.mark.parametrize(
    ("given", "schedule", "inner"),
    [
        ({"optimizer": "ranger21"}, "constant", True),
        ({"optimizer": "ranger21", "schedule": "cosine"}, "cosine", False),
        ({"optimizer": "adamw", "warmup_epochs": 2.0}, "cosine", False),
        ({"schedule": ScheduleSettings(name="step")}, "step", False),
        ({"optimizer": OptimizerSettings(name="adamw", lr=0.1)}, "cosine", False),
    ],
)
def test_a_named_schedule_takes_the_place_of_the_optimizers_own(
    given: dict[str, Any], schedule: str, inner: bool
) -> None:
    settings = single_stage_plan(**given).stages[0].settings
    assert (settings.schedule.name, settings.optimizer.schedules_itself) == (schedule, inner)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "resnet81"}, "resnet81"),
        ({"start": "best:small"}, "only a plan has stages"),
        ({"optimizer": "ranger21", "warmup_epochs": 1.0}, "warms up by itself"),
        ({"augment": "nothing"}, "nothing"),
        ({"class_weights": "heavy"}, "heavy"),
        ({"sizes": "64:2,128"}, "write SIDE:EPOCHS"),
        ({"sizes": [(64, 2, 3)]}, "must be pairs"),
        ({"sizes": "128:2,64:1"}, "must ascend"),
        ({"sizes": "64:2,128:0"}, "epochs of a side in sizes"),
        ({"sizes": "64:2,128:1", "epochs": 4}, "are 3 epochs, and epochs is 4: leave epochs out"),
        ({"sizes": "64:2,128:1", "size_px": 64}, "leave size out"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_wrong_values(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        single_stage_plan(**given)


@pytest.mark.parametrize("sizes", ["64:2, 96:1,128:4", [[64, 2], [96, 1], [128, 4]], ((64, 2), (96, 1), (128, 4))])
def test_progressive_sizes_give_the_length_and_the_cache(sizes: Any) -> None:
    [stage] = single_stage_plan(sizes=sizes).stages
    assert (stage.settings.epochs, stage.settings.sizes) == (7, ((64, 2), (96, 1), (128, 4)))
    assert stage.cache_size_px == 128
    assert single_stage_plan(sizes=sizes, epochs=7, size_px=128).stages[0].settings == stage.settings


def test_evaluation_and_settings_of_all_stages() -> None:
    plan = with_settings(single_stage_plan(), precision="bf16", accumulate=4)
    assert (plan.stages[0].settings.precision, plan.stages[0].settings.accumulate) == ("bf16", 4)
    assert with_evaluation(plan) == plan
    changed = with_evaluation(plan, tta="d4", tta_average="probabilities", batchnorm="running").evaluation
    assert (str(changed.tta), changed.tta.average, changed.batchnorm) == ("d4", "probabilities", "running")
    with pytest.raises(UsageError, match="only one view"):
        with_evaluation(plan, tta_average="logits")


def test_an_augmentation_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(single_stage_plan(augment="report-a").stages[0].augmentation.to_toml())
    assert single_stage_plan(augment=str(path)) == single_stage_plan(augment="report-a")
