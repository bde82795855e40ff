from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.errors import RunError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.seen_samples import SeenBefore
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitSpec
from leukemia_models.evaluation.predictions import read_predictions
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.evaluation.settings import AUTO, NO_TTA, REESTIMATED, RUNNING, Tta, parse_tta
from leukemia_models.networks.registry import build_model
from leukemia_models.reports.results import Results
from leukemia_models.runs.evaluate_part import (
    Predictor,
    evaluate_part,
    evaluation_calibration,
    evaluation_tta,
    linked_subjects_note,
    require_replaceable,
)
from leukemia_models.runs.finalize import LEFT_OUT, finalize_run, prepare_predictor, trained_checkpoint
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.training_plan import EvaluationSettings

from ...leukemia_data.helpers import build, cache_dir, write_cell
from ..fakes import CPU, NORMALIZATION

SIZE_PX = 16
D4 = parse_tta("d4", "probabilities")
SETTINGS = BootstrapSettings(num_draws=100)
PARTS = ("train", "train", "valid", "test")
"""Of each class's four subjects."""
RECORD = EpochRecord(
    epoch=1,
    lr=0.1,
    train_loss=0.5,
    train_accuracy=0.75,
    valid_loss=0.6,
    valid_accuracy=0.7,
    valid_balanced_accuracy=0.7,
    valid_weighted_f1=0.7,
    valid_auroc=0.7,
    seconds=2.0,
    images_per_s=70.0,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Two classes, four subjects each, six images per subject."""
    root = tmp_path_factory.mktemp("evaluated")
    for number in range(48):
        label, subject = number % 2, number // 2 % 4
        write_cell(root / "source" / ("hem", "all")[label] / f"{'ha'[label]}{subject}" / f"{number:03}.png", number)
    listing = list_source([root / "source"], options=ReadingOptions(subject_from="folder"))
    build(listing, root / "cache", sizes_px=(SIZE_PX,))
    return open_cache(cache_dir(root / "cache", SIZE_PX))


def split_of(cache: Cache, parts: tuple[str, ...] = PARTS) -> SplitCache:
    codes = [SPLIT_NAMES.index(parts[int(subject[1])]) for subject in cache.table.subject_texts]
    return SplitCache(cache, SplitSpec("given"), np.array(codes, np.int8))


def trained_run(folder: Path, cache: Cache, *, validated: bool = True) -> RunFolder:
    """A run of an untrained network with arbitrary BatchNorm statistics."""
    run = RunFolder(folder)
    folder.mkdir()
    record = RECORD if validated else replace(RECORD, valid_loss=None)
    info = CheckpointInfo(
        model_name="resnet18-narrow",
        classes=cache.manifest.classes,
        size_px=SIZE_PX,
        normalization=NORMALIZATION,
        recipe=cache.manifest.recipe.to_dict(),
        data_fingerprint=cache.manifest.fingerprint,
        split_kind="given",
        settings=TrainSettings(epochs=2),
        details={"batch_size": 8},
    )
    for which, epochs in (("best", 1), ("last", 2)):
        model = build_model("resnet18-narrow", 2, seed=epochs)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name.endswith("running_var"):
                    buffer.mul_(9.0)
        records = tuple(replace(record, epoch=n + 1, valid_balanced_accuracy=0.7 - n / 10) for n in range(epochs))
        save_checkpoint(run.checkpoint(which), model, info, TrainState(TrainHistory(records), None), resumable=False)
    return run


def predictor_of(checkpoint: Checkpoint, tta: Tta | None = None, batch_size: int = 8) -> Predictor:
    return Predictor.load(checkpoint, device=CPU, batch_size=batch_size, tta=tta)


def finalized(run: RunFolder, data: SplitCache, evaluation: EvaluationSettings) -> dict[str, Results]:
    return finalize_run(run, data, evaluation=evaluation, device=CPU, batch_size=8, bootstrap=SETTINGS)


def prepared(run: RunFolder, data: SplitCache, batchnorm: str) -> Checkpoint:
    checkpoint = trained_checkpoint(run)
    settings = EvaluationSettings(batchnorm=batchnorm)
    return prepare_predictor(predictor_of(checkpoint), data, settings)[0].checkpoint


def evaluation_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    assert checkpoint.info.judging is not None
    return checkpoint.info.judging


def changed(before: Checkpoint, after: Checkpoint) -> set[str]:
    """Last words of the names of the tensors that differ."""
    assert before.model_state.keys() == after.model_state.keys()
    return {
        name.rpartition(".")[2]
        for name, value in before.model_state.items()
        if not torch.equal(value, after.model_state[name])
    }


@dataclass(frozen=True)
class Finished:
    run: RunFolder
    data: SplitCache
    results: dict[str, Results]


@pytest.fixture(scope="module")
def finished(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that was evaluated with d4 and re-estimated statistics. Read it, never change it."""
    run, data = trained_run(tmp_path_factory.mktemp("runs") / "run", cache), split_of(cache)
    return Finished(run, data, finalized(run, data, EvaluationSettings(tta=D4, batchnorm=REESTIMATED)))


def test_final_holds_the_best_weights_with_the_chosen_statistics(finished: Finished) -> None:
    best, final = (load_checkpoint(finished.run.checkpoint(which)) for which in ("best", "final"))
    assert changed(best, final) == {"running_mean", "running_var"}
    assert final.state.history == best.state.history
    results = finished.results
    assert {part: result.metrics.num_samples for part, result in results.items()} == {"valid": 12, "test": 12}
    assert all((finished.run.part(part) / "summary.md").is_file() for part in results)
    judging = evaluation_of(final)
    assert (judging["checkpoint"], judging["batchnorm"]["chosen"]) == ("best", REESTIMATED)
    assert (judging["batchnorm"]["num_images"], judging["batchnorm"]["judged_on"]) == (24, "valid")
    assert results["test"].epoch == 1
    assert any(note.startswith("BatchNorm:") for note in results["test"].notes)


def test_calibration_of_too_few_subjects_is_kept_but_not_reported(finished: Finished) -> None:
    results = finished.results
    calibration = evaluation_calibration(load_checkpoint(finished.run.checkpoint("final")).info.judging)
    assert calibration is not None
    assert (calibration.fitted_on, calibration.num_images, calibration.is_usable) == ("valid", 12, False)
    assert all(part.calibrated is None for part in results.values())
    assert any("few subjects, 1 of class" in note for note in results["test"].notes)
    assert any("a little too good" in note for note in results["valid"].notes)
    assert not any("a little too good" in note for note in results["test"].notes)


def test_calibration_from_validation_is_reported_on_test_alone(finished: Finished, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(finished.run.checkpoint("final"))
    judging = evaluation_of(checkpoint)
    usable = {**judging, "calibration": {**judging["calibration"], "is_usable": True}}
    checkpoint = replace(checkpoint, info=replace(checkpoint.info, judging=usable))
    for part, is_reported in (("valid", False), ("test", True)):
        results = evaluate_part(predictor_of(checkpoint), finished.data, part, tmp_path / part, bootstrap=SETTINGS)
        assert (results.calibrated is not None) == is_reported


def test_final_is_evaluated_again_as_it_was(finished: Finished, tmp_path: Path) -> None:
    run, data = finished.run, finished.data
    checkpoint = load_checkpoint(run.checkpoint("final"))
    assert evaluation_tta(checkpoint.info.judging) == D4
    evaluate_part(predictor_of(checkpoint), data, "test", tmp_path / "test", bootstrap=SETTINGS)
    for name in ("results.json", "predictions.csv", "summary.md", "subjects.csv"):
        assert (tmp_path / "test" / name).read_bytes() == (run.part("test") / name).read_bytes()
    classes = checkpoint.info.classes
    table = read_predictions(run.part("test") / "predictions.csv", classes)
    probabilities = table[f"probability_{classes[1]}"]
    for views, is_same in ((D4, True), (NO_TTA, False)):
        found = predictor_of(checkpoint, views).predict_part(data, "test").probabilities_NK
        assert np.allclose(found[:, 1], probabilities, atol=1e-6) == is_same


def test_last_weights_of_a_watched_training_are_not_called_untouched(finished: Finished, tmp_path: Path) -> None:
    last = load_checkpoint(finished.run.checkpoint("last"))
    results = evaluate_part(predictor_of(last), finished.data, "valid", tmp_path, bootstrap=SETTINGS)
    assert any(note.startswith("Training was monitored on these images") for note in results.notes)


def test_subjects_with_identical_images_are_listed(finished: Finished) -> None:
    assert linked_subjects_note(finished.data, "test") == ()
    data, table = finished.data, finished.data.cache.table
    digests = table.pixel_digests.copy()
    names = sorted({table.subject_texts[number] for number in data.indices("test").tolist()})
    rows = [table.subject_texts.index(name) for name in names[:2]]
    digests[rows[1]] = digests[rows[0]]
    cache = replace(data.cache, table=replace(table, pixel_digests=digests))
    [note] = linked_subjects_note(SplitCache(cache, data.spec, data.codes), "test")
    assert " = ".join(names[:2]) in note


def test_results_file_says_how_it_was_evaluated(finished: Finished) -> None:
    found = json.loads((finished.run.part("test") / "results.json").read_text(encoding="utf-8"))
    assert found["judging"]["tta"] == {"views": "d4", "average": "probabilities"}
    assert found["judging"]["batchnorm"]["mode"] == REESTIMATED
    assert found["intervals"]["image"]["num_draws"] == 100
    assert [row["images"] for row in found["subjects"]["subjects"]] == [6, 6]


def test_running_statistics_are_kept_by_option(finished: Finished) -> None:
    found = prepared(finished.run, finished.data, RUNNING)
    assert changed(load_checkpoint(finished.run.checkpoint("best")), found) == set()
    assert evaluation_of(found)["batchnorm"] == {"chosen": RUNNING}


def test_auto_takes_what_does_better_on_validation_images(finished: Finished) -> None:
    found = prepared(finished.run, finished.data, AUTO)
    report = evaluation_of(found)["batchnorm"]
    is_better = report["reestimated"]["loss"] < report["running"]["loss"]
    assert report["chosen"] == (REESTIMATED if is_better else RUNNING)
    assert bool(changed(load_checkpoint(finished.run.checkpoint("best")), found)) == is_better


def test_test_images_decide_nothing(finished: Finished) -> None:
    """Without the test part the final network is the same."""
    codes = finished.data.codes.copy()
    codes[codes == SPLIT_NAMES.index("test")] = len(SPLIT_NAMES)
    without = prepared(finished.run, SplitCache(finished.data.cache, SplitSpec("given"), codes), REESTIMATED)
    whole = prepared(finished.run, finished.data, REESTIMATED)
    assert without.info == whole.info
    assert changed(without, whole) == set()


def test_everything_is_evaluated_in_32_bits_without_tf32(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of BatchNorm too, on CUDA: they are those that the network is evaluated with."""
    asked: list[tuple[torch.device, bool, bool]] = []

    @contextmanager
    def noted(device: torch.device, *, tf32: bool, cudnn_benchmark: bool) -> Iterator[None]:
        asked.append((device, tf32, cudnn_benchmark))
        yield
        asked.append((device, tf32, cudnn_benchmark))

    monkeypatch.setattr("leukemia_models.runs.evaluate_part.convolutions", noted)
    predictor = predictor_of(load_checkpoint(finished.run.checkpoint("final")))
    predictor.predict_part(finished.data, "test")
    predictor.reestimate_batchnorm(finished.data, finished.data.indices("train"))
    assert asked == 4 * [(CPU, False, False)]
    results = json.loads((finished.run.part("test") / "results.json").read_text(encoding="utf-8"))
    assert results["judging"]["precision"] == "fp32"


def test_without_validation_the_last_weights_are_evaluated(cache: Cache, tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", cache, validated=False)
    assert trained_checkpoint(run).path == run.checkpoint("last")
    data = split_of(cache, ("train", "train", "train", "test"))
    results = finalized(run, data, EvaluationSettings(batchnorm=REESTIMATED))
    assert set(results) == {"test"}
    assert results["test"].epoch == 2
    assert results["test"].calibrated is None
    judging = evaluation_of(load_checkpoint(run.checkpoint("final")))
    assert (judging["checkpoint"], judging["calibration"]) == ("last", None)
    assert judging["batchnorm"]["judged_on"] == LEFT_OUT
    # Of 36 training images three decide; of the others one would be a batch alone.
    assert (judging["batchnorm"]["num_judged"], judging["batchnorm"]["num_images"]) == (3, 32)


def test_results_are_written_over_by_those_of_the_same_meaning_only(tmp_path: Path, cache: Cache) -> None:
    data, other = split_of(cache), split_of(cache, ("train", "test", "valid", "test"))
    run = trained_run(tmp_path / "run", cache)
    options = {"bootstrap": SETTINGS, "replaces_others": False}
    best, last = (load_checkpoint(run.checkpoint(which)) for which in ("best", "last"))
    out = tmp_path / "test"
    evaluate_part(predictor_of(best), data, "test", out, **options)
    written = (out / "results.json").read_bytes()
    evaluate_part(predictor_of(best, batch_size=5), data, "test", out, **options)
    relabelled = replace(best, info=replace(best.info, classes=("x", "y")))
    for checkpoint, split, part, word in (
        (last, data, "test", "weights"),
        (best, other, "test", "other images"),
        (best, data, "valid", "other images"),
        (best, replace(data, seen_before=SeenBefore(subjects=1)), "test", "stamped subject-disjoint"),
    ):
        with pytest.raises(RunError, match=word):
            evaluate_part(predictor_of(checkpoint), split, part, out, **options)
    with pytest.raises(RunError, match="classes"):
        require_replaceable(out, relabelled, data, "test")
    content = json.loads(written)
    del content["identity"]  # as version 0.1 wrote it
    (out / "results.json").write_text(json.dumps(content), encoding="utf-8")
    evaluate_part(predictor_of(best), data, "test", out, **options)
    assert json.loads((out / "results.json").read_bytes())["identity"] == json.loads(written)["identity"]
