"""Audits called as a library function."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from leukemia_data.auditing.run_audit import audit
from leukemia_data.auditing.subject_recovery import recover_subjects
from leukemia_data.errors import UsageError
from leukemia_data.sources.reading_options import ReadingOptions

from ..consoles import ListConsole
from ..helpers import build, cache_dir, image_paths, make_source


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "source", 12)


def opencv_state() -> tuple[int, int]:
    return cv2.getNumThreads(), cv2.utils.logging.getLogLevel()


@pytest.fixture
def _three_threads():
    """OpenCV with settings of the calling program."""
    before = opencv_state()
    cv2.setNumThreads(3)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    yield
    cv2.setNumThreads(before[0])
    cv2.utils.logging.setLogLevel(before[1])


def test_a_source_and_its_cache_are_one_set_of_images(source, tmp_path):
    build(source, tmp_path / "caches", sizes_px=[16])
    console = ListConsole()
    found = audit([source, cache_dir(tmp_path / "caches", 16)], console=console, max_distance=None)
    assert [(argument.kind, argument.name) for argument in found.arguments] == [
        ("source", str(source)),
        ("cache", str(cache_dir(tmp_path / "caches", 16))),
    ]
    assert len(found.report.identical) == 12
    assert any("nearly the same set of images" in note for note in found.notes)
    assert [(bar.what, bar.total, bar.done) for bar in console.bars] == [
        ("reading images", 12, 12),
        ("hashing the cache", 12, 12),
    ]
    assert found.leaks
    json.dumps(found.to_dict())


def test_files_are_written_only_if_a_folder_is_named(source, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert audit([source]).files == ()
    assert sorted(tmp_path.rglob("*")) == before
    found = audit([source], out=tmp_path / "out")
    assert set(found.files) == set((tmp_path / "out").iterdir())
    assert json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))["images"] == 12


def test_images_without_subjects_are_drawn_by_class(source, tmp_path):
    audit([source], reading=ReadingOptions(subject_from="none"), max_distance=None, out=tmp_path / "out")
    sheet = cv2.imread(str(tmp_path / "out" / "balance.png"))
    is_bar = (sheet == (0xB2, 0x72, 0x00)).all(axis=2)
    # Two classes of six images each: two bars of one height.
    columns = is_bar.any(axis=0).astype(int)
    assert (np.diff(columns) == 1).sum() == 2
    assert len(set(is_bar.sum(axis=0)[columns.astype(bool)].tolist())) == 1


def test_wrong_arguments(source):
    with pytest.raises(UsageError, match="nothing to audit"):
        audit([])
    with pytest.raises(UsageError, match="--split is checked on one"):
        audit([source, source], split="subject")
    with pytest.raises(UsageError, match="no-such-split"):
        audit([source], split="no-such-split")


@pytest.mark.usefixtures("_three_threads")
def test_opencv_is_left_as_it_was(source, tmp_path):
    before = opencv_state()
    audit([source])
    assert opencv_state() == before
    table = tmp_path / "lab.csv"
    table.write_text("\n".join(["Path", *(path.name for path in image_paths(source))]) + "\n", encoding="utf-8")
    recover_subjects([table], [source], tmp_path / "out", root=image_paths(source)[0].parent)
    assert opencv_state() == before
    with pytest.raises(UsageError):
        audit([source], split="official:99")
    assert opencv_state() == before
