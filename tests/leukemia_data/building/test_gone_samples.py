"""Renamed images are copied, and finding them takes less than quadratic time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from leukemia_data.building import planned_tasks as gone_samples

from .. import helpers
from ..helpers import OLD_NS, SIZES, image_paths, make_source, write_cell

NUM = 60
build, make_plan = (partial(function, sizes_px=SIZES[:1]) for function in (helpers.build, helpers.make_plan))


@pytest.fixture
def built(tmp_path) -> Path:
    """Source and cache of 60 images, each of another size and time."""
    source = make_source(tmp_path / "source", NUM)
    for number, path in enumerate(image_paths(source)):
        write_cell(path, number, mtime_ns=OLD_NS + number * 1_000)
    build(source, tmp_path / "cache")
    return tmp_path


def in_other_folder(path: Path) -> Path:
    return path.parent.with_name(f"{path.parent.name}9") / path.name


def under_other_name(path: Path) -> Path:
    return path.with_name(f"new-{path.name}")


@pytest.mark.parametrize("few", [1024, 3])
@pytest.mark.parametrize("renamed", [in_other_folder, under_other_name])
def test_renamed_images_are_copied_whether_few_or_many(built, monkeypatch, few, renamed):
    monkeypatch.setattr(gone_samples, "FEW_GONE", few)
    for path in image_paths(built / "source")[: NUM // 2]:
        renamed(path).parent.mkdir(exist_ok=True)
        path.rename(renamed(path))
    summary = build(built / "source", built / "cache")
    assert summary.num_processed == 0
    build(built / "source", built / "fresh")
    # A shard's name is its content.
    names = [{path.name for path in (built / name).rglob("shard-*.h5")} for name in ("cache", "fresh")]
    assert names[1] <= names[0]


def test_candidates_of_all_tasks_grow_as_the_images_do(built, monkeypatch):
    """With one time and one size for all, only so many of each key are candidates."""
    monkeypatch.setattr(gone_samples, "FEW_GONE", 3)
    monkeypatch.setattr(gone_samples, "MAX_ALIKE", 2)
    for path in image_paths(built / "source")[: NUM // 2]:
        path.rename(under_other_name(path))
    plan = make_plan(built / "source", built / "cache")
    tasks = list(plan.tasks)
    num_new = NUM // 2
    known = sum(len(task.unchanged) for task in tasks)
    assert len(tasks) > 3
    assert sum(len(task.by_digest) for task in tasks) <= known + 2 * 2 * num_new


def test_a_task_without_new_images_has_no_candidates(built):
    paths = image_paths(built / "source")
    for path in paths[:2]:
        path.unlink()
    for task in make_plan(built / "source", built / "cache").tasks:
        assert len(task.by_digest) == len(task.unchanged) == len(task.records)
