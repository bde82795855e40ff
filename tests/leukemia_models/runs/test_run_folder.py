"""Files of a run: found, or named if missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leukemia_data.errors import RunError, UsageError
from leukemia_models.runs.run_config import RunConfig, load_config, save_config
from leukemia_models.runs.run_folder import RunFolder, find_runs
from leukemia_models.training.run_state import TrainSettings

CONFIG = RunConfig(
    model_name="resnet18",
    cache_dir="cache",
    data_fingerprint="ab",
    data_digest="cd",
    split="subject",
    split_seed=0,
    batch_size=8,
    normalization={"mean": [0.1, 0.1, 0.1], "std": [0.2, 0.2, 0.2]},
    settings=TrainSettings(epochs=1),
    augmentation={},
    judging={"tta": {"views": "none", "num_rotations": 0, "average": "logits"}, "batchnorm": "auto"},
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    save_config(RunFolder(tmp_path), CONFIG)
    return RunFolder(tmp_path)


def test_settings_come_back(folder: RunFolder) -> None:
    assert load_config(folder) == CONFIG
    assert find_runs(folder.root) == [folder]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name", 3),
        ("batch_size", "8"),
        ("batch_size", 0),
        ("split_seed", None),
        ("normalization", {"mean": [0.1], "std": [0.2]}),
        ("normalization", []),
        ("judging", "d4"),
        ("judging", {"tta": [], "batchnorm": "auto"}),
        ("settings", None),
        ("cache_dir", ["x"]),
        ("start", 1),
        ("unknown", 1),
    ],
)
def test_a_value_of_the_wrong_kind_is_damage(folder: RunFolder, key: str, value: Any) -> None:
    content = json.loads(folder.config.read_text(encoding="utf-8"))
    folder.config.write_text(json.dumps({**content, key: value}), encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        load_config(folder)


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"format": 1, "format": 2}', "[]"])
def test_text_that_is_no_description_is_refused(folder: RunFolder, text: str) -> None:
    folder.config.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json (cannot be read|is damaged)"):
        load_config(folder)


def test_a_missing_path_is_wrong_usage_and_a_folder_without_a_run_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent does not exist"):
        find_runs(tmp_path / "absent")
    with pytest.raises(RunError, match="holds no run"):
        find_runs(tmp_path)
    (tmp_path / "a-file").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="holds no run"):
        find_runs(tmp_path / "a-file")
