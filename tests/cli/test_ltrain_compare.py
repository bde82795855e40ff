"""``ltrain compare`` on runs that were really trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.ltrain.look import compare as command
from cli.main_group import MainGroup


@pytest.fixture(scope="module")
def compare() -> Callable[..., Result]:
    """``compare(run, run, "--json")``: the command here, with errors as the program shows them."""
    group = MainGroup("ltrain", lazy_commands={"compare": ("cli.ltrain.look:compare", "Compare runs.")})

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(group, ["compare", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_two_runs(finished_run: Path, tmp_path: Path, compare: Callable, json_of: Callable) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    told: dict[str, Any] = json_of(compare(finished_run, other, "--out", tmp_path / "out", "--json"))
    assert [run["label"] for run in told["runs"]] == [finished_run.name, "copy"]
    assert told["settings_that_differ"] == {}
    difference = told["pairs"][0]["images"]["differences"]["balanced_accuracy"]
    assert difference["first"] == difference["second"]
    assert difference["difference"] == 0
    results = json.loads((finished_run / "test" / "results.json").read_text(encoding="utf-8"))
    assert told["runs"][0]["images"]["metrics"]["confusion"] == results["metrics"]["confusion"]
    assert told["stamp"] == results["split"]["stamp"]
    assert set(told["files"]) <= {path.name for path in (tmp_path / "out").iterdir()}


def test_text_of_a_comparison(finished_run: Path, tmp_path: Path, compare: Callable) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "copy"))
    result = compare(finished_run, other, "--part", "valid", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"{finished_run.name} minus copy: balanced accuracy +0.000" in result.stdout
    assert str(tmp_path / "out" / "comparison.md") in result.stdout
    page = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert "| evaluated part | valid | valid |" in page


def test_one_run_is_not_enough(finished_run: Path, tmp_path: Path, compare: Callable, error_of: Callable) -> None:
    assert "two runs or more" in error_of(compare(finished_run, "--out", tmp_path / "out"), 2)
    assert not (tmp_path / "out").exists()


def test_no_run(finished_run: Path, tmp_path: Path, compare: Callable, error_of: Callable) -> None:
    assert "holds no run" in error_of(compare(finished_run, tmp_path), 1)


def test_help_has_examples() -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert "ltrain compare runs/r18 runs/r50 runs/r152" in result.output
