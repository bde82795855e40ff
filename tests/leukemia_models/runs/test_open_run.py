from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from leukemia_data.errors import RunError
from leukemia_models.runs import open_run

JUDGING: dict[str, Any] = {
    "checkpoint": "best",
    "tta": {"views": "d4", "average": "logits"},
    "batchnorm": {"chosen": "running", "mode": "auto", "text": "As trained."},
    "calibration": {"temperature": 1.5, "threshold": 0.4, "fitted_on": "valid", "num_images": 8, "note": None},
}


def opened(monkeypatch: pytest.MonkeyPatch, judging: object) -> Any:
    """The checkpoint of a run with a `run.json`."""
    checkpoint = SimpleNamespace(path=Path("final.safetensors"), info=SimpleNamespace(judging=judging))
    monkeypatch.setattr(open_run, "load_checkpoint", lambda path: checkpoint)
    return open_run.open_checkpoint(Path("final.safetensors"))


@pytest.mark.parametrize("judging", [None, JUDGING, {"checkpoint": "last"}, {**JUDGING, "calibration": None}])
def test_what_finalizing_writes_is_taken(monkeypatch: pytest.MonkeyPatch, judging: object) -> None:
    assert opened(monkeypatch, judging).info.judging == judging


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint": "../../best"},
        {"checkpoint": None},
        {"tta": "d4"},
        {"tta": {"views": "d8", "average": "logits"}},
        {"batchnorm": "running"},
        {"batchnorm": {"chosen": "other"}},
        {"batchnorm": {"mode": "auto"}},
        {"batchnorm": {"chosen": "running", "text": 3}},
        {"calibration": {"temperature": 1.5}},
        {"calibration": {**JUDGING["calibration"], "temperature": "1"}},
        {"calibration": {**JUDGING["calibration"], "threshold": 2}},
        {"calibration": {**JUDGING["calibration"], "num_images": "many"}},
        {"calibration": [1]},
    ],
    ids=json.dumps,
)
def test_anything_else_is_damaged(monkeypatch: pytest.MonkeyPatch, change: dict[str, object]) -> None:
    with pytest.raises(RunError, match="its settings of the evaluation cannot be read"):
        opened(monkeypatch, {**JUDGING, **change})


@pytest.mark.parametrize("judging", ["best", ["checkpoint"], {"tta": JUDGING["tta"]}])
def test_evaluation_of_another_kind_is_damaged(monkeypatch: pytest.MonkeyPatch, judging: object) -> None:
    with pytest.raises(RunError, match="its settings of the evaluation cannot be read"):
        opened(monkeypatch, judging)
