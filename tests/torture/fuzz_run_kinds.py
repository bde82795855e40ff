"""The files of runs and cross-validations, and their readers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cli.ldata
import cli.ltrain
from leukemia_data.caches.cache import open_cache
from leukemia_data.errors import LeukemiaError
from leukemia_data.records.record import CELL_CLASSES
from leukemia_models.comparing.compared_run import read_accuracies, read_compared_runs
from leukemia_models.comparing.fold_evaluation import cross_validate, read_fold
from leukemia_models.comparing.kfold import load_fold_names
from leukemia_models.evaluation.predictions import evaluated_samples, read_predictions, write_table
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.run_config import load_config, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import codes_of_rows, read_split
from leukemia_models.training.checkpoint import load_checkpoint
from leukemia_models.training.start_file import load_start
from leukemia_models.training.training_plan import EvaluationSettings

from .fuzz_kind import FileKind, kind_at, run_command
from .fuzz_mutations import mutated_bytes, mutated_json, mutated_text, with_other_value
from .fuzz_places import Places

FEW_DRAWS = BootstrapSettings(num_draws=100)


def run_kinds(places: Places) -> Iterator[FileKind]:
    folder, (fold, _), (one, _) = RunFolder(places.run), places.folds, places.judged
    for which in ("last", "best"):
        path = folder.checkpoint(which)
        yield kind_at(f"checkpoint {which}", path, mutated_checkpoint, lambda path=path: _read_checkpoint(path))
    image = next(places.source.rglob("*.png"))
    yield kind_at(
        "checkpoint in use",
        folder.checkpoint("final"),
        mutated_content,
        lambda: _use_checkpoint(places, image),
        share=1,
    )
    yield kind_at("run.json", folder.config, mutated_json, lambda: _read_config(places))
    kfold = places.root / "kfold" / "kfold.json"
    content = {"format": "leukemia-cells k-fold", "format_version": 1, "kind": "2", "seed": 0}
    kfold.write_text(json.dumps({**content, "folds": {"fold-1": "test-fold:1/2", "fold-2": "test-fold:2/2"}}))
    yield kind_at("kfold.json", kfold, mutated_json, lambda: _read_fold_names(kfold.parent))
    yield kind_at("results.json of a fold", fold / "test" / "results.json", mutated_json, lambda: _read_folds(places))
    yield kind_at("results.json of a run", one / "test" / "results.json", mutated_json, lambda: _read_compared(places))
    yield kind_at("history.csv", one / "history.csv", mutated_text, lambda: _read_history(one / "history.csv"))
    yield kind_at("split.csv of a run", folder.split, mutated_text, lambda: _read_split(places))
    yield kind_at("split.csv of a fold", fold / "split.csv", mutated_text, lambda: _read_folds(places))
    predictions, held_out = one / "test" / "predictions.csv", fold / "test" / "predictions.csv"
    yield kind_at("predictions.csv", predictions, mutated_text, lambda: _read_predictions(predictions))
    yield kind_at("predictions.csv of a fold", held_out, mutated_text, lambda: _read_folds(places))


def _taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _put_together(header: object, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def mutated_content(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A checkpoint whose tensors are sound, and whose description says something else."""
    header, tensors = _taken_apart(rng.choice(seeds))
    content = json.loads(header["__metadata__"]["content"])
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = with_other_value(rng, content)
    header["__metadata__"]["content"] = json.dumps(content)
    return _put_together(header, tensors)


def mutated_checkpoint(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A checkpoint with damage in its bytes, its header or its description."""
    header, tensors = _taken_apart(rng.choice(seeds))
    match rng.randrange(5):
        case 0:
            return mutated_bytes(rng, seeds)
        case 1:
            text = mutated_json(rng, [json.dumps(header).encode()])
            length = rng.choice((len(text), len(text), len(text) + 1, 0, 2**32, 2**63, 2**64 - 1))
            return length.to_bytes(8, "little") + text + tensors
        case 2:
            header = with_other_value(rng, header)
            return _put_together(header, tensors)
        case 3:
            text = mutated_text(rng, [header["__metadata__"]["content"].encode()])
            header["__metadata__"]["content"] = text.decode("utf-8", "replace")
            return _put_together(header, tensors)
        case _:
            return mutated_content(rng, seeds)


def _read_checkpoint(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    info = checkpoint.info
    assert info.model_name
    assert all(isinstance(name, str) for name in (info.model_name, *info.classes))
    assert isinstance(info.size_px, int)
    assert all(np.isfinite(checkpoint.info.normalization.mean))
    assert checkpoint.state.epochs_done >= 0
    EvaluationSettings.from_dict({"tta": info.judging["tta"]} if info.judging and "tta" in info.judging else {})
    try:
        load_start(build_model("resnet18-narrow", 2), path)
    except LeukemiaError:
        return
    raise AssertionError("the weights of another network were taken")


def _use_checkpoint(places: Places, image: Path) -> None:
    run_command(cli.ltrain.main, "predict", places.run, image, "--out", places.root / "out.csv")
    run_command(cli.ltrain.main, "evaluate", places.run, "--draws", 100)


def _read_config(places: Places) -> None:
    config = load_config(RunFolder(places.run))
    EvaluationSettings.from_dict(config.judging)
    again = RunFolder(places.root)
    save_config(again, config)
    assert load_config(again) == config
    run_command(cli.ltrain.main, "evaluate", places.run, "--part", "nothing")


def _read_fold_names(root: Path) -> None:
    for name in load_fold_names(root):
        assert (root / name).resolve().parent == root.resolve(), name


def _read_folds(places: Places) -> None:
    result = cross_validate([read_fold(path) for path in places.folds], FEW_DRAWS)
    json.dumps(result.to_dict(), allow_nan=False)
    assert "| " in result.text() or result.text()


def _read_compared(places: Places) -> None:
    for run in read_compared_runs(places.judged):
        assert all(isinstance(name, str) for name in run.classes)
        assert run.marked_label
        run.metrics.values()


def _read_history(path: Path) -> None:
    for epoch in read_accuracies(path):
        assert 0 <= epoch.train <= 1
        assert epoch.valid is None or 0 <= epoch.valid <= 1


def _read_split(places: Places) -> None:
    with open_cache(places.cache) as cache:
        assert len(codes_of_rows(read_split(RunFolder(places.run).split), cache)) == len(cache)


def _read_predictions(path: Path) -> None:
    table = read_predictions(path, CELL_CLASSES)
    again = path.with_name("again.csv")
    write_table(again, table)
    assert list(read_predictions(again, CELL_CLASSES)["id"]) == list(table["id"])
    samples = evaluated_samples(table, CELL_CLASSES)
    assert np.isfinite(samples.probabilities_N).all()
