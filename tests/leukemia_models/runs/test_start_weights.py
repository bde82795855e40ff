"""Samples that start weights have seen: from the checkpoint, from its run, or unknown."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from leukemia_data.caches.cache import Cache, open_cache
from leukemia_data.errors import RunError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.seen_samples import (
    NOTHING_SEEN_BEFORE,
    UNKNOWN_ORIGIN,
    SeenBefore,
    SeenSamples,
    samples_of_split,
)
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitSpec
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.run_config import RunConfig, load_config, save_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import SplitCache, data_digest, naming_of, write_split
from leukemia_models.runs.start_weights import recorded_seen_before, seen_before, seen_by_run, seen_by_weights
from leukemia_models.training.checkpoint import CheckpointInfo, load_checkpoint, load_info, save_checkpoint
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainSettings, TrainState

from ...leukemia_data.helpers import build, cache_dir, write_cell
from ..fakes import NORMALIZATION

NETWORK, SIZE_PX = "resnet18-narrow", 16
SUBJECTS = ("a0", "a1", "h0", "h1")
SETTINGS = TrainSettings(epochs=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Four people with two images each."""
    root = tmp_path_factory.mktemp("start")
    for number, subject in enumerate(SUBJECTS):
        for image in (0, 1):
            write_cell(
                root / "source" / {"a": "all", "h": "hem"}[subject[0]] / subject / f"{image}.png", 2 * number + image
            )
    build(list_source([root / "source"], options=ReadingOptions(subject_from="folder")), root, sizes_px=(SIZE_PX,))
    return open_cache(cache_dir(root, SIZE_PX))


def codes_of(cache: Cache, *parts: str) -> np.ndarray:
    """Parts of the four people."""
    part_of = dict(zip(SUBJECTS, parts, strict=True))
    return np.array([SPLIT_NAMES.index(part_of[subject]) for subject in cache.table.subject_texts], np.int8)


def make_run(root: Path, cache: Cache, codes: np.ndarray, *, start: str = "scratch", stage: str = "") -> RunFolder:
    """A run's settings, split and last checkpoint, as this version writes them."""
    config = RunConfig(
        model_name=NETWORK,
        cache_dir=str(cache.location),
        data_fingerprint=cache.manifest.fingerprint,
        data_digest=data_digest(cache),
        split="given",
        split_seed=0,
        batch_size=2,
        normalization=NORMALIZATION.to_dict(),
        settings=SETTINGS,
        start=start,
        stage=stage,
    )
    folder = RunFolder(root)
    root.mkdir(parents=True)
    save_config(folder, config)
    write_split(folder.split, cache.table, codes)
    info = CheckpointInfo(
        model_name=NETWORK,
        classes=cache.manifest.classes,
        size_px=SIZE_PX,
        normalization=NORMALIZATION,
        recipe=cache.manifest.recipe.to_dict(),
        data_fingerprint=cache.manifest.fingerprint,
        split_kind="given",
        settings=SETTINGS,
        details={"split_seed": 0},
        seen=seen_by_run(folder, config, SplitCache(cache, SplitSpec("given"), codes)),
    )
    state = TrainState(TrainHistory(), None)
    save_checkpoint(folder.checkpoint("last"), build_model(NETWORK, 2, seed=0), info, state, resumable=False)
    return folder


def as_of_an_earlier_version(folder: RunFolder) -> RunFolder:
    """Remove what version 0.1 did not write: the samples seen by the weights, and the pixels' digests."""
    checkpoint = load_checkpoint(folder.checkpoint("last"))
    info = replace(checkpoint.info, seen=None)
    save_checkpoint(folder.checkpoint("last"), checkpoint.build_model(), info, checkpoint.state, resumable=False)
    rows = list(csv.reader(folder.split.read_text(encoding="utf-8").splitlines()))
    with folder.split.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(row[:4] for row in rows)
    return folder


@pytest.fixture
def first(cache: Cache, tmp_path: Path) -> RunFolder:
    """Trained on a0 and h0, chosen by a1, tested on h1."""
    return make_run(tmp_path / "first", cache, codes_of(cache, "train", "valid", "train", "test"))


def test_a_checkpoint_records_what_its_weights_have_seen(first: RunFolder, cache: Cache, tmp_path: Path) -> None:
    path = first.checkpoint("last")
    own = samples_of_split(cache.table, codes_of(cache, "train", "valid", "train", "test"), naming_of(cache))
    assert load_checkpoint(path).info.seen == own == seen_by_weights(path)
    assert load_info(path) == load_checkpoint(path).info
    moved = shutil.copy(path, tmp_path / "moved.safetensors")
    assert seen_by_weights(Path(moved)) == own


def test_names_of_subjects_do_not_travel_with_the_weights(first: RunFolder) -> None:
    content = first.checkpoint("last").read_bytes()
    assert not any(f'"{subject}"'.encode() in content for subject in SUBJECTS)


@pytest.mark.parametrize("version", ["this", "0.1"])
def test_a_split_that_tests_what_was_trained_on_is_met(version: str, first: RunFolder, cache: Cache) -> None:
    folder = first if version == "this" else as_of_an_earlier_version(first)
    path, other = folder.checkpoint("last"), codes_of(cache, "test", "train", "train", "valid")
    # Version 0.1 gives the subjects only, not the images.
    images = 2 if version == "this" else 0
    assert seen_before(path, cache, other) == SeenBefore(subjects=1, images=images, num_samples=2)
    assert seen_before(path, cache, codes_of(cache, "train", "valid", "train", "test")) == NOTHING_SEEN_BEFORE


def test_weights_inherit_what_their_start_has_seen(first: RunFolder, cache: Cache, tmp_path: Path) -> None:
    """Over two runs whose own splits never hold a0 out."""
    second = make_run(
        tmp_path / "second",
        cache,
        codes_of(cache, "train", "train", "valid", "test"),
        start=str(first.checkpoint("last")),
    )
    third = make_run(
        tmp_path / "third",
        cache,
        codes_of(cache, "train", "train", "valid", "train"),
        start=str(second.checkpoint("last")),
    )
    second.checkpoint("last").unlink()
    first.checkpoint("last").unlink()
    found = seen_before(third.checkpoint("last"), cache, codes_of(cache, "valid", "valid", "test", "test"))
    assert found == SeenBefore(subjects=4, images=8, num_samples=8)


def test_the_chain_of_earlier_runs_is_followed_as_far_as_it_is_there(
    first: RunFolder, cache: Cache, tmp_path: Path
) -> None:
    second = as_of_an_earlier_version(
        make_run(
            tmp_path / "second",
            cache,
            codes_of(cache, "test", "train", "valid", "train"),
            start=str(as_of_an_earlier_version(first).checkpoint("last")),
        )
    )
    test_a0 = codes_of(cache, "test", "train", "valid", "train")
    assert seen_before(second.checkpoint("last"), cache, test_a0).subjects == 2
    shutil.rmtree(first.root)
    assert seen_before(second.checkpoint("last"), cache, test_a0) == SeenBefore(is_known=False)


def test_weights_from_elsewhere_are_of_unknown_origin(first: RunFolder, cache: Cache, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(build_model(NETWORK, 2, seed=0).state_dict(), foreign)
    assert seen_by_weights(foreign) == UNKNOWN_ORIGIN
    lonely = tmp_path / "lonely.safetensors"
    shutil.copy(as_of_an_earlier_version(first).checkpoint("last"), lonely)
    assert seen_by_weights(lonely) == UNKNOWN_ORIGIN


def test_a_run_of_another_checkpoint_is_not_used(first: RunFolder) -> None:
    folder = as_of_an_earlier_version(first)
    save_config(folder, replace(load_config(folder), split_seed=5))
    assert seen_by_weights(folder.checkpoint("last")) == UNKNOWN_ORIGIN


def test_runs_that_start_from_each_other_end(first: RunFolder, cache: Cache) -> None:
    folder = as_of_an_earlier_version(first)
    save_config(folder, replace(load_config(folder), start=str(folder.checkpoint("last"))))
    assert not seen_by_weights(folder.checkpoint("last")).is_complete


def test_what_a_run_wrote_down_of_its_start_counts(first: RunFolder, cache: Cache, tmp_path: Path) -> None:
    codes = codes_of(cache, "test", "train", "train", "valid")
    run = make_run(tmp_path / "run", cache, codes, start=str(first.checkpoint("last")))
    found = recorded_seen_before(run, load_config(run), cache, codes)
    assert found == SeenBefore(subjects=1, images=2, num_samples=2)  # inferred, as it has no record
    save_config(run, replace(load_config(run), seen_before=found))
    first.checkpoint("last").unlink()
    assert recorded_seen_before(run, load_config(run), cache, codes) == found
    save_config(run, replace(load_config(run), seen_before=None))
    assert recorded_seen_before(run, load_config(run), cache, codes) == SeenBefore(is_known=False)


def test_a_stage_has_met_what_the_stage_before_it_met(first: RunFolder, cache: Cache, tmp_path: Path) -> None:
    codes = codes_of(cache, "test", "train", "train", "valid")
    plan = tmp_path / "plan"
    make_run(plan / "01-small", cache, codes, start=str(first.checkpoint("last")), stage="small")
    large = make_run(plan / "02-large", cache, codes, start="../01-small/last.safetensors", stage="large")
    found = recorded_seen_before(large, load_config(large), cache, codes)
    assert found == SeenBefore(subjects=1, images=2, num_samples=2)
    circle = make_run(plan / "03-circle", cache, codes, start="../03-circle/last.safetensors", stage="circle")
    assert recorded_seen_before(circle, load_config(circle), cache, codes) == SeenBefore(is_known=False)


@pytest.mark.parametrize(
    "description", [{"is_complete": 1, "sources": []}, {"is_complete": True, "sources": [{"source": 1}]}, [], {}]
)
def test_a_damaged_description_is_refused(description: object, first: RunFolder, tmp_path: Path) -> None:
    path = first.checkpoint("last")
    with safetensors.safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.dumps({**json.loads(metadata["content"]), "seen": description})
    del metadata["content_digest"]
    damaged = tmp_path / "damaged.safetensors"
    safetensors.torch.save_file(tensors, damaged, {**metadata, "format_version": "3", "content": content})
    with pytest.raises(RunError, match="damaged"):
        load_info(damaged)


def test_seen_samples_are_compared_by_value(cache: Cache) -> None:
    codes = codes_of(cache, "train", "valid", "train", "test")
    one, same = (samples_of_split(cache.table, codes, naming_of(cache)) for _ in range(2))
    assert one == same != SeenSamples()
