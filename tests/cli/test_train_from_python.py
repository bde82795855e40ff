"""The library trains what the command line trains: the same call of the same functions, with plain values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leukemia_data.errors import InterruptionError, RunError, UsageError
from leukemia_models.comparing.kfold import cross_validate, resume_cross_validation
from leukemia_models.runs.resume_runs import RunChanges
from leukemia_models.runs.run_config import MachineOptions, RunOptions
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.train_plan import resume, train_plan
from leukemia_models.training.training_plan import TrainingPlan, single_stage_plan

from ..blank_figures import blank_figures
from ..leukemia_data.consoles import ListConsole
from .runs import assert_same_run

CPU = MachineOptions(device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _quick_figures() -> Iterator[None]:
    with blank_figures():
        yield


def small_plan(epochs: int) -> TrainingPlan:
    network = {"model": "resnet18-narrow", "precision": "fp32"}  # the same numbers on every CPU
    return single_stage_plan(epochs=epochs, size_px=64, batch_size=8, lr=0.01, **network)


def test_a_run_from_python_is_that_of_the_command_line(caches: Path, finished_run: Path, tmp_path: Path) -> None:
    console = ListConsole()
    trained = train_plan(small_plan(2), caches, machine=CPU, out=tmp_path / "run", console=console)
    assert_same_run(tmp_path / "run", finished_run)
    assert (trained.root, trained.folders) == (tmp_path / "run", (RunFolder(tmp_path / "run"),))
    assert trained.to_dict()["results"].keys() == trained.results.keys() == {"valid", "test"}
    assert [bar.what for bar in console.bars][:3] == ["checking", "epoch 1/2", "epoch 2/2"]
    assert not any(bar.is_open for bar in console.bars)


def test_a_run_grows_when_it_is_resumed_and_the_same_call_resumes_what_it_began(
    caches: Path, finished_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train_plan(small_plan(1), caches, machine=CPU, out=out, resume_if_begun=True)
    with pytest.raises(UsageError, match=r"not empty"):
        train_plan(small_plan(1), caches, machine=CPU, out=out)
    with pytest.raises(UsageError, match="begun with other settings: --epochs: 1 instead of 2"):
        train_plan(small_plan(2), caches, machine=CPU, out=out, resume_if_begun=True)
    train_plan(small_plan(1), caches, machine=CPU, out=out, resume_if_begun=True)
    trained = resume(out, changes=RunChanges(epochs=2), machine=CPU)
    assert len((out / "history.csv").read_text().splitlines()) == 3
    assert trained.results["test"].metrics.num_samples


def test_folders_are_numbered_where_nobody_names_them(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    roots = [train_plan(small_plan(1), caches, options=RunOptions(seed=3), machine=CPU).root for _ in range(2)]
    assert roots == [Path("runs") / f"resnet18-narrow-64px-subject-seed3{suffix}" for suffix in ("", "-2")]


def test_a_cross_validation_from_python(caches: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "folds", small_plan(1)
    trained = cross_validate(plan, caches, folds=2, machine=CPU, out=out)
    assert trained.root == out
    assert trained.pooled is not None
    before = (out / "predictions.csv").read_bytes()
    assert resume_cross_validation(out, machine=CPU).pooled is not None
    assert (out / "predictions.csv").read_bytes() == before
    with pytest.raises(UsageError, match="is a cross-validation"):
        resume(out, machine=CPU)
    with pytest.raises(RunError, match="holds no cross-validation"):
        resume_cross_validation(out / "fold-1", machine=CPU)


def test_an_interruption_names_the_call_that_resumes(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leukemia_models.runs.train_run.fit", interrupt)
    out = tmp_path / "run"
    with pytest.raises(InterruptionError, match=r"interrupted: go on with `resume\('.*run'\)`"):
        train_plan(small_plan(1), caches, machine=CPU, out=out)
