"""What a refused split's message offers: every command that it names trains, with the stamp that was promised."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from leukemia_data.auditing.audit_input import cache_audit_images, training_split
from leukemia_data.caches.cache import Cache, find_cache_dirs, open_cache
from leukemia_data.caches.opening import DEFAULT_COPIES
from leukemia_data.console import NULL_CONSOLE
from leukemia_data.errors import UsageError
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split, split_indices
from leukemia_models.runs.draft_runs import RunDraft, draft_runs, stage_caches
from leukemia_models.runs.run_config import MachineOptions, RunOptions, TrainingProcess
from leukemia_models.runs.train_plan import TrainedRuns
from leukemia_models.training.training_plan import TrainingPlan

SUBJECTS = ("none", "some", "all", "one a class")
DIVISIONS = {
    "train, test": ("TRAIN", "TRAIN", "TEST"),
    "train, valid, test": ("TRAIN", "VALID", "TEST"),
    "nothing": ("",),
    "folds": ("fold_0", "fold_1", "fold_2"),
}
ASKED = ("subject", "given", "image", "fold:1/2", "fold:1/5", "test-fold:1/2", "official:0", "official:1+valid")
PER_CLASS = 18
OFFERED = re.compile(r"`ltrain \.\.\. ([^`]*)` \(stamped (.*?)\)(?= or |\.|$)")


def paths(subjects: str, parts: tuple[str, ...]) -> Iterator[str]:
    for kind, number in itertools.product(("all", "hem"), range(PER_CLASS)):
        part = parts[number % len(parts)]
        # Nine people a class, each in one part.
        person = 1 if subjects == "one a class" else number % 9 + 1
        prefix = "H" if kind == "hem" else ""
        is_named = subjects in ("all", "one a class") or (subjects == "some" and number % 9 < 4)
        name = f"UID_{prefix}{person}_1_{number}_{kind}" if is_named else f"{kind}-{number}"
        yield "/".join(filter(None, ("cells", part, kind, f"{name}.bmp")))


@pytest.fixture(scope="module")
def cache_of(tmp_path_factory: pytest.TempPathFactory, ldata: Callable, write_image: Callable) -> Callable[..., Cache]:
    """``cache_of(subjects, division)``: a cache of tiny different images, built once."""
    made: dict[tuple[str, str], Cache] = {}

    def build(subjects: str, division: str) -> Cache:
        key = (subjects, division)
        if key not in made:
            root = tmp_path_factory.mktemp("choices")
            for number, path in enumerate(paths(subjects, DIVISIONS[division])):
                pixels = np.full((4, 4, 3), 100, np.uint8)
                pixels[0] = number + 1
                write_image(root / path, pixels)
            made_with = ("--size", 16, "--recipe", "fit", "--n-jobs", 1, "--subject-from", "name")
            options = made_with if subjects != "none" else made_with[:-2]
            result = ldata("build", root / "cells", *options, "--cache", root / "cache")
            assert result.exit_code == 0, result.output
            made[key] = open_cache(find_cache_dirs(root / "cache")[0])
        return made[key]

    return build


@pytest.fixture
def drafted(ltrain: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunDraft]:
    """``drafted(cache, "--split", ...)``: the run that the command line would begin with."""
    drafts: list[RunDraft] = []

    def draft_only(plan: TrainingPlan, cache: Path, *, options: RunOptions, **others: object) -> TrainedRuns:
        process = TrainingProcess(options=MachineOptions(), device=torch.device("cpu"))
        caches = stage_caches(plan, cache, options.positive, DEFAULT_COPIES, NULL_CONSOLE)
        drafts.extend(draft_runs(plan, caches, options, process))
        return TrainedRuns(cache, (), {}, is_first=False)

    monkeypatch.setattr("leukemia_models.runs.train_plan.train_plan", draft_only)

    def draft(cache: Cache, *options: str) -> RunDraft:
        network = ("--model", "resnet18-narrow", "--batch-size", 4)
        result = ltrain("--cache", cache.location, *network, *options)
        if result.exit_code:
            raise UsageError(result.stderr)
        return drafts.pop()

    return draft


@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("subjects", SUBJECTS)
def test_every_command_that_a_refusal_names_trains_with_the_stamp_it_promised(
    subjects: str, division: str, cache_of: Callable, drafted: Callable
) -> None:
    cache = cache_of(subjects, division)
    assert (cache.table.subjects == b"").sum() == {"none": 36, "some": 20}.get(subjects, 0)
    refusals = [error for error in (refusal(drafted, cache, asked) for asked in ASKED) if error]
    assert refusals
    for error in refusals:
        offers = OFFERED.findall(error)
        assert len(offers) == error.count("`ltrain") >= 1, error
        for options, stamp in offers:
            run = drafted(cache, *shlex.split(options))
            assert run.data.leaks.stamp == stamp
            assert ("--allow-leak" in options) == stamp.startswith("PATIENT-MIXED")


def refusal(drafted: Callable, cache: Cache, split: str) -> str:
    try:
        drafted(cache, "--split", split)
    except UsageError as error:
        return str(error)
    return ""


def test_settings_that_need_a_validation_part_are_offered_splits_with_one(
    cache_of: Callable, drafted: Callable
) -> None:
    with pytest.raises(UsageError, match="validation part") as caught:
        drafted(cache_of("all", "folds"), "--split", "official:0", "--early-stopping", "3")
    offers = OFFERED.findall(str(caught.value))
    assert offers
    for options, _ in offers:
        run = drafted(cache_of("all", "folds"), "--early-stopping", "3", *shlex.split(options))
        assert len(run.data.indices("valid"))


def test_a_validation_part_drawn_from_train_by_subject(cache_of: Callable, drafted: Callable) -> None:
    cache = cache_of("all", "train, test")
    run = drafted(cache, "--split", "given", "--valid-from-train", "0.3")
    assert run.config.split == "given+valid:0.3"
    assert run.data.spec.file_name == "given-valid0.3"
    assert run.data.leaks.is_disjoint
    # Six people of a class train in TRAIN, of two images each.
    shares = [len(run.data.indices(part)) for part in ("train", "valid", "test")]
    assert shares == [16, 8, 12]
    # The same written out, and in an audit.
    assert np.array_equal(drafted(cache, "--split", "given+valid:0.3").data.codes, run.data.codes)
    images = cache_audit_images(cache)
    split = training_split(run.data.spec, images, 0, cache.manifest.classes, cache.manifest.subjects)
    assert [split.sides.of_image.count(part) for part in ("train", "valid", "test")] == shares
    assert split.stamp.verdict == "ok"
    again = assign_split(parse_split("given+valid:0.3"), cache.table, 1)
    assert np.array_equal(split_indices(again, "test"), run.data.indices("test"))
    assert not np.array_equal(again, run.data.codes)


def test_a_validation_part_of_unknown_subjects_is_drawn_by_image_and_stamped(
    cache_of: Callable, drafted: Callable
) -> None:
    run = drafted(cache_of("none", "train, test"), "--split", "given", "--valid-from-train", "0.25", "--allow-leak")
    labels = run.data.cache.table.labels[run.data.indices("valid")]
    assert np.bincount(labels).tolist() == [3, 3]
    assert run.data.leaks.stamp == "PATIENT-MIXED (36 images of unknown subjects)"


@pytest.mark.parametrize(
    ("division", "options", "words"),
    [
        ("train, valid, test", ("--split", "given", "--valid-from-train", "0.2"), "12 validation images"),
        ("nothing", ("--split", "given", "--valid-from-train", "0.2"), "no train images"),
        ("train, test", ("--valid-from-train", "0.2"), "subject has one already"),
        ("train, test", ("--split", "given+valid:0.1", "--valid-from-train", "0.2"), "0.1"),
        ("train, test", ("--split", "given+valid:0.7"), "at most 0.5"),
    ],
)
def test_validation_parts_that_cannot_be_drawn(
    division: str, options: tuple[str, ...], words: str, cache_of: Callable, drafted: Callable
) -> None:
    with pytest.raises(UsageError, match=words):
        drafted(cache_of("all", division), *options)


@pytest.mark.parametrize("share", ["0", "0.51", "-1", "x", "nan"])
def test_shares_out_of_range_are_wrong_usage(share: str, cache_of: Callable, ltrain: Callable) -> None:
    options = ("--cache", cache_of("all", "train, test").location, "--split", "given", "--valid-from-train", share)
    result = ltrain(*options)
    assert result.exit_code == 2
    assert "given" in result.stderr or "--valid-from-train" in result.stderr


def test_a_run_goes_on_and_is_evaluated_with_the_share_it_began_with(
    cache_of: Callable, ltrain: Callable, tmp_path: Path
) -> None:
    cache, run = cache_of("all", "train, test"), tmp_path / "run"
    network = ("--model", "resnet18-narrow", "--batch-size", 8, "--device", "cpu", "--epochs", 1)
    begun = ltrain("--cache", cache.location, *network, "--split", "given", "--valid-from-train", "0.3", "--out", run)
    assert begun.exit_code == 0, begun.output
    # Of 16 px, too small for 16 bits.
    assert "computes in fp32" in begun.stderr
    assert json.loads((run / "run.json").read_text())["split"] == "given+valid:0.3"
    in_16_bits = ltrain("--out", run, "--resume", "--epochs", 2, "--device", "cpu", "--precision", "bf16")
    assert (in_16_bits.exit_code, "these have 16 px" in in_16_bits.stderr) == (2, True)
    assert ltrain("--out", run, "--resume", "--epochs", 2).exit_code == 0
    assert ltrain("evaluate", run, "--part", "valid").exit_code == 0
    refused = ltrain("--out", run, "--resume", "--valid-from-train", "0.2")
    assert (refused.exit_code, "--valid-from-train" in refused.stderr) == (2, True)


def test_cross_validation_takes_the_share_too_and_names_what_works_without_subjects(
    cache_of: Callable, ltrain: Callable, error_of: Callable, tmp_path: Path
) -> None:
    network = ("--model", "resnet18-narrow", "--device", "cpu", "--epochs", 1)
    unknown = cache_of("none", "nothing")
    for folds in ("2", "loso", "official"):
        message = error_of(ltrain("kfold", "--cache", unknown.location, *network, "--folds", folds), 2)
        assert "`ltrain ... --split image --allow-leak`" in message
    both = ("--inner-valid", "--valid-from-train", "0.3")
    assert "--inner-valid" in error_of(ltrain("kfold", "--cache", unknown.location, *network, *both), 2)
    known, out = cache_of("all", "nothing"), tmp_path / "folds"
    result = ltrain(
        *("kfold", "--cache", known.location, *network, "--folds", 2, "--valid-from-train", "0.3", "--out", out)
    )
    assert result.exit_code == 0, result.output
    assert json.loads((out / "fold-2" / "run.json").read_text())["split"] == "test-fold:2/2+valid:0.3"
