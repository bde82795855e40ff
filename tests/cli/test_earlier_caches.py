"""Caches of releases that kept no looks of images: read and trained on with one line, and made anew by a build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.caches.manifest import load_manifest

from ..leukemia_data.helpers import as_earlier_release


@pytest.fixture
def earlier(own_caches: Path) -> Path:
    """Cache root with the sample as an earlier release left it."""
    for directory in (own_caches / "cells").iterdir():
        as_earlier_release(directory)
    return own_caches


def test_a_build_adds_looks_once_and_says_why(earlier: Path, cells: Path, ldata: Callable) -> None:
    build = ("build", cells, "--size", 64, "--size", 48, "--recipe", "raw", "--cache", earlier)
    result = ldata(*build)
    assert result.exit_code == 0, result.output
    assert result.output.count("kept no looks") == 1
    assert "32 preprocessed" in result.output
    assert all(load_manifest(directory).has_looks for directory in (earlier / "cells").iterdir())
    assert "Nothing to do" in ldata(*build).output


def test_an_audit_says_what_it_did_not_look_for(earlier: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("audit", earlier, "--size", 48, "--json"))
    [check] = [check for check in told["checks"] if check["key"] == "near_identical"]
    assert check["verdict"] == "unchecked"
    assert sum("kept no looks" in note for note in told["notes"]) == 1


def test_training_goes_on_with_one_line(
    earlier: Path, train_options: list[object], tmp_path: Path, ltrain: Callable
) -> None:
    options = [earlier if option == train_options[1] else option for option in train_options]
    result = ltrain(*options, "--epochs", 1, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert result.output.count("kept no looks") == 1
    assert "subject-disjoint" in (tmp_path / "run" / "test" / "summary.md").read_text(encoding="utf-8")
