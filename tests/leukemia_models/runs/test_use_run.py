"""Runs used from Python: evaluation, predictions and submissions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.errors import RunError, UsageError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitSpec
from leukemia_models.evaluation.predictions import read_predictions
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.evaluate_run import evaluate_images, evaluate_run
from leukemia_models.runs.finalize import finalize_run
from leukemia_models.runs.open_run import OpenRun, open_run
from leukemia_models.runs.predict_run import predict_images, predict_part, write_submissions
from leukemia_models.runs.run_config import RunConfig, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import SplitCache, data_digest, write_split
from leukemia_models.training.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.training_plan import EvaluationSettings

from ...leukemia_data.consoles import ListConsole
from ...leukemia_data.helpers import build, cache_dir, write_cell
from ..fakes import CPU, NORMALIZATION

SIZE_PX = 16
DRAWS = BootstrapSettings(num_draws=100)
SETTINGS = TrainSettings(epochs=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, four subjects each, four images a subject."""
    root = tmp_path_factory.mktemp("source") / "cells"
    for number in range(32):
        label, subject = number % 2, number // 2 % 4
        write_cell(root / ("hem", "all")[label] / f"{'ha'[label]}{subject}" / f"{number:03}.png", number)
    return root


@pytest.fixture(scope="module")
def path(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose network was never trained."""
    root = tmp_path_factory.mktemp("run")
    build(list_source([source], options=ReadingOptions(subject_from="folder")), root / "cache", sizes_px=(SIZE_PX,))
    cache = open_cache(cache_dir(root / "cache", SIZE_PX))
    parts = ("train", "train", "valid", "test")
    codes = [SPLIT_NAMES.index(parts[int(subject[1])]) for subject in cache.table.subject_texts]
    data = SplitCache(cache, SplitSpec("given"), np.array(codes, np.int8))
    folder = RunFolder(root / "run")
    folder.root.mkdir()
    write_split(folder.split, cache.table, data.codes)
    save_config(folder, _config(cache))
    save_checkpoint(
        folder.checkpoint("last"),
        build_model("resnet18-narrow", 2),
        _info(cache),
        TrainState(TrainHistory(()), None),
        resumable=False,
    )
    finalize_run(folder, data, evaluation=EvaluationSettings(batchnorm="running"), device=CPU, batch_size=8)
    return folder.root


def _config(cache: Cache) -> RunConfig:
    return RunConfig(
        model_name="resnet18-narrow",
        cache_dir=str(cache.location),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split="given",
        split_seed=0,
        batch_size=8,
        normalization=vars(NORMALIZATION),
        settings=SETTINGS,
    )


def _info(cache: Cache) -> CheckpointInfo:
    return CheckpointInfo(
        model_name="resnet18-narrow",
        classes=cache.manifest.classes,
        size_px=SIZE_PX,
        normalization=NORMALIZATION,
        recipe=cache.manifest.recipe.to_dict(),
        data_fingerprint=cache.manifest.fingerprint,
        split_kind="given",
        settings=SETTINGS,
        details={"batch_size": 8},
    )


@pytest.fixture
def console() -> ListConsole:
    return ListConsole()


@pytest.fixture
def run(path: Path, console: ListConsole) -> OpenRun:
    return open_run(path, device="cpu", batch_size=4, console=console)


def test_a_part_is_evaluated_into_a_folder_and_a_value(run: OpenRun, console: ListConsole, tmp_path: Path) -> None:
    found = evaluate_run(run, "test", out=tmp_path / "test", bootstrap=DRAWS)
    assert (found.part, found.out, found.num_known) == ("test", tmp_path / "test", None)
    assert found.results.metrics.num_samples == 8
    written = json.loads((found.out / "results.json").read_text(encoding="utf-8"))
    assert found.to_dict()["results"] == found.results.to_dict()
    assert written["metrics"] == json.loads(json.dumps(found.results.metrics.to_dict()))
    assert [bar.what for bar in console.bars] == ["evaluate test"]
    found.require_complete()


@pytest.mark.parametrize(
    ("choices", "name"),
    [
        ({"tta": "d4"}, "valid-final-d4"),
        ({"tta": "rotations:3", "tta_average": "probabilities"}, "valid-final-rotations3-probabilities"),
        ({"batchnorm": "reestimated", "checkpoint": "last"}, "valid-last-reestimated"),
        ({"checkpoint": "last"}, "valid-last"),
        ({}, "valid"),
    ],
)
def test_results_go_to_a_folder_named_by_what_was_chosen(choices: dict[str, str], name: str, run: OpenRun) -> None:
    found = evaluate_run(run, "valid", bootstrap=DRAWS, **choices)
    assert found.out == run.folder.part(name)
    assert (found.out / "predictions.csv").is_file()
    if "tta" in choices:
        assert found.results.judging["tta"]["views"] == choices["tta"]


def test_images_from_outside_are_evaluated_and_known_ones_counted(
    run: OpenRun, source: Path, console: ListConsole, tmp_path: Path
) -> None:
    reading = ReadingOptions(subject_from="folder")
    found = evaluate_images(run, [source], reading=reading, out=tmp_path / "out", bootstrap=DRAWS)
    assert found.part == "outside-cells"
    assert found.num_known == {"train": 16, "valid": 8, "test": 8}
    assert found.num_images == found.results.metrics.num_samples == 32
    assert console.notes[0] == "outside-cells: 32 images"
    assert {"known", "failed"} <= found.to_dict().keys()


def test_predictions_are_a_table_and_written_only_by_option(run: OpenRun, source: Path, tmp_path: Path) -> None:
    before = sorted(run.folder.root.rglob("*"))
    whole = predict_part(run, "all")
    images = predict_images(run, [source])
    assert sorted(run.folder.root.rglob("*")) == before
    assert whole.out is images.out is None
    assert (whole.num_predicted, images.num_predicted) == (32, 32)
    assert sum(images.num_predicted_per_class.values()) == 32
    columns = ["id", "probability_all"]
    joined = whole.table[columns].merge(images.table[columns], on="id")
    assert len(joined) == 32
    assert joined["probability_all_x"].tolist() == pytest.approx(joined["probability_all_y"].tolist(), abs=1e-6)
    written = predict_part(run, "test", out=tmp_path / "p.csv")
    assert read_predictions(tmp_path / "p.csv", ("hem", "all"))["id"].tolist() == written.table["id"].tolist()


def test_an_unusable_image_is_reported_and_prevents_a_submission(
    run: OpenRun, source: Path, tmp_path: Path, console: ListConsole
) -> None:
    good = min(source.rglob("*.png"))
    (tmp_path / "good.png").write_bytes(good.read_bytes())
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    found = predict_images(run, [tmp_path / "good.png", tmp_path / "bad.png"], submission=tmp_path / "s.csv")
    assert (found.num_predicted, found.failures) == (1, (str(tmp_path / "bad.png"),))
    assert any("bad.png" in note for note in console.notes)
    assert not (tmp_path / "s.csv").exists()
    with pytest.raises(RunError, match=r"no submission was written: 1 of the images.*bad\.png"):
        found.require_complete()
    with pytest.raises(RunError, match="1 of 2 images could not be used"):
        predict_images(run, [tmp_path / "good.png", tmp_path / "bad.png"]).require_complete()


def test_submissions_answer_each_list(run: OpenRun, source: Path, tmp_path: Path) -> None:
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.png"))
    lists = {"a.csv": names[:3], "b.csv": [names[2], names[5], names[2]]}
    for name, rows in lists.items():
        (tmp_path / name).write_text("".join(f"{row}\n" for row in ["Path", *rows]), encoding="utf-8")
    written = write_submissions(run, [tmp_path / name for name in lists], tmp_path / "out", root=source)
    assert written.num_predicted == 4
    assert [each.num_rows for each in written.submissions] == [3, 3]
    table = predict_part(run, "all").table.set_index("id")["prediction"]
    for each, rows in zip(written.submissions, lists.values(), strict=True):
        lines = each.out.read_text(encoding="utf-8").splitlines()
        assert lines == ["ID,label", *(f"{row},{int(table[row] == 'all')}" for row in rows)]


def test_wrong_arguments_name_what_is_wrong(run: OpenRun, path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nope"):
        open_run(path, device="nope")
    with pytest.raises(UsageError, match="d8"):
        evaluate_run(run, tta="d8", out=tmp_path / "out")
    with pytest.raises(UsageError, match="belongs to a run's own results"):
        evaluate_run(run, "valid", out=path / "test")
    with pytest.raises(UsageError, match="some"):
        predict_part(run, "some")
    with pytest.raises(UsageError, match="own files"):
        predict_part(run, out=path / "split.csv")
