"""Notes about a source that is read differently from the existing cache, given before any change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from leukemia_data.building.plan import BuildPlan, PlanInputs, plan_build
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.records.fingerprint import lines_digest
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source

from ..helpers import CAPACITY, NAME, SIZES, TINY_RECIPE, cache_dir, file_states, run_plan, write_cell


def plan(listing: SourceListing, root: Path) -> BuildPlan:
    inputs = PlanInputs(
        name=NAME,
        cache_root=root,
        recipe=TINY_RECIPE,
        sizes_px=SIZES[:1],
        classes=listing.classes,
        opencv_version=cv2.__version__,
        shard_capacity=CAPACITY,
        reading=listing.reading.to_record(),
    )
    return plan_build(inputs, listing.records)


def read(source: Path, **options) -> SourceListing:
    return list_source([source], options=ReadingOptions.parse(**options))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two classes of four subjects with two images each, half of them to train by, and a third class of one."""
    for number in range(16):
        part, name = ("train", "test")[number // 8], ("Early", "Pro")[number % 2]
        write_cell(
            tmp_path / "cells" / part / name / f"p{number // 2 % 4 + 4 * (number % 2)}" / f"{number}.png", number
        )
    write_cell(tmp_path / "cells" / "train" / "Benign" / "p9" / "16.png", 16)
    return tmp_path / "cells"


@pytest.fixture
def root(source: Path, tmp_path: Path) -> Path:
    """Its caches."""
    run_plan(plan(read(source), tmp_path / "cache"))
    return tmp_path / "cache"


def said(source: Path, root: Path, **options) -> list[str]:
    """Notes of a build's plan, which changes nothing."""
    before = file_states(root)
    notes = plan(read(source, **options), root).notes
    assert file_states(root) == before
    return list(notes)


def change_manifests(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what manifests hold, as another release would have written them."""
    for path in root.rglob(MANIFEST_NAME):
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        digest = lines_digest([json.dumps({**content, "digest": None}, sort_keys=True)])
        path.write_text(json.dumps({**content, "digest": digest}), encoding="utf-8")


def forget_readings(root: Path) -> None:
    """Make caches of version 0.1 of them, whose manifests have no reading."""
    change_manifests(root, lambda content: content.pop("reading"))


def test_equal_readings_give_no_note(source, root):
    assert said(source, root) == []
    write_cell(source / "train" / "Benign" / "p9" / "17.png", 17)
    (source / "test" / "Pro" / "p4" / "9.png").unlink()
    assert not any("another" in note for note in said(source, root))


def test_another_class(source, root):
    options, classes, changed = said(source, root, merge=["Leukemia=Early+Pro"])
    assert "--merge Leukemia=Early+Pro" in options
    assert classes == "classes Benign, Early, Pro, now Benign, Leukemia"
    assert changed.startswith("16 of 17 images")
    assert "Early -> Leukemia 8, Pro -> Leukemia 8" in changed


def test_another_subject(source, root):
    options, sources, changed = said(source, root, subject_from="none")
    assert "--subject-from none" in options
    assert sources == "subjects were read from folders of a known form, now none"
    assert changed.startswith("17 of 17 images")
    assert "p0 -> none 2" in changed


def test_another_split(source, root):
    _, splits, changed = said(source, root, split_folders="train=test,valid=train")
    assert "train (train), test (test), now train (test), valid (train)" in splits
    assert changed == "17 of 17 images that the cache holds get another split: train -> valid 9, test -> train 8"


def test_a_moved_file_is_no_other_meaning(source, root):
    (source / "test" / "Pro" / "p4").rename(source / "test" / "Pro" / "p44")
    assert said(source, root) == []


def test_the_order_of_the_classes(source, root):
    notes = said(source, root, classes="Pro,Early,Benign")
    assert notes == [
        "options: none, now --classes Pro,Early,Benign",
        "classes Benign, Early, Pro, now Pro, Early, Benign",
    ]


def test_the_next_build_compares_with_the_last_reading(source, root):
    run_plan(plan(read(source, subject_from="none"), root))
    assert said(source, root, subject_from="none") == []
    assert any("none -> p0 2" in note for note in said(source, root))


# --- caches of version 0.1 ------------------------------------------------------------------------------------


def test_a_cache_of_version_0_1_opens_and_its_first_build_says_what_changes(source, root):
    forget_readings(root)
    cache = open_cache(cache_dir(root))
    assert (cache.manifest.reading, cache.manifest.subjects, len(cache)) == (None, None, 17)
    assert said(source, root) == []
    (changed,) = said(source, root, subject_from="none")
    assert "another subject" in changed
    classes, merged = said(source, root, merge=["Leukemia=Early+Pro"])
    assert "now Benign, Leukemia" in classes
    assert "another class" in merged
    assert said(source, root, classes="Pro,Early,Benign") == ["classes Benign, Early, Pro, now Pro, Early, Benign"]
    run_plan(plan(read(source, subject_from="none"), root))
    cache = open_cache(cache_dir(root))
    assert cache.manifest.reading is not None
    assert cache.manifest.reading["options"] == {"subject_from": "none"}
    assert set(cache.table.subjects.tolist()) == {b""}


def test_a_cache_of_version_0_1_of_the_same_meaning_costs_no_image(source, root):
    forget_readings(root)
    made = plan(read(source), root)
    assert made.num_to_make == 0
    run_plan(made)
    assert open_cache(cache_dir(root)).manifest.subjects.count == 9


def test_a_reading_of_another_release_is_compared_by_its_images_alone(source, root):
    change_manifests(root, lambda content: content["reading"].update(classes=[["a", "b", "c"]]))
    assert said(source, root) == []
    (changed,) = said(source, root, subject_from="none")
    assert "another subject" in changed
