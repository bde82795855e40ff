"""``ldata plan``, ``ldata build --plan --task`` and ``ldata commit``, against ``ldata build`` alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

BUILD = ("--size", 64, "--size", 48, "--recipe", "raw")


@pytest.fixture
def planned(scratch: Path, cells: Path, ldata: Callable, json_of: Callable) -> Path:
    """A plan of the sample, below the current folder."""
    answer = json_of(ldata("plan", cells, *BUILD, "--cache", "root", "--out", "cells.plan", "--json"))
    assert answer["num_shards"] == 1
    assert (answer["num_images"], answer["num_kept"], answer["num_unusable"]) == (32, 0, 0)
    assert answer["num_bytes"] > 32 * 3 * (64 * 64 + 48 * 48)
    assert [Path(path).is_absolute() for path in answer["caches"]] == [True, True]
    return scratch / "cells.plan"


def test_shares_and_commit_leave_the_bytes_of_one_build(
    planned: Path, caches: Path, ldata: Callable, json_of: Callable, files_below: Callable, monkeypatch: object
) -> None:
    """From another folder: all paths of a plan are absolute."""
    elsewhere = planned.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    made = [json_of(ldata("build", "--plan", planned, "--task", task, "--json")) for task in ("2/2", "1/2", "2/2")]
    assert [answer["num_processed"] for answer in made] == [32, 0, 0]
    assert [answer["num_found"] for answer in made] == [0, 0, 32]
    committed = json_of(ldata("commit", planned, "--json"))
    assert (committed["changed"], committed["num_images"], committed["quarantined"]) == (True, 32, [])
    assert files_below(planned.parent / "root") == files_below(caches)


def test_missing_share_is_named_with_its_command(planned: Path, ldata: Callable, error_of: Callable) -> None:
    message = error_of(ldata("commit", planned), 1)
    assert message.startswith(f"1 of 1 shards of {planned} are not made")
    assert f"\n  ldata build --plan {planned} --task 1/1\n" in ldata("commit", planned).stderr
    assert ldata("build", "--plan", planned, "--task", "1/1").exit_code == 0
    assert ldata("commit", planned).exit_code == 0


def test_unusable_image_is_reported_by_its_share_and_decided_by_the_commit(
    scratch: Path, cells: Path, ldata: Callable, error_of: Callable, json_of: Callable
) -> None:
    source = Path(shutil.copytree(cells, scratch / "own"))
    bad = next(source.rglob("*.bmp"))
    bad.write_bytes(b"no image")
    assert ldata("plan", source, *BUILD, "--cache", "root", "--out", "own.plan").exit_code == 0
    share = ldata("build", "--plan", "own.plan", "--task", "1/1")
    assert share.exit_code == 0
    assert f"unusable: {bad.relative_to(source).as_posix()}: " in share.stderr
    assert "1 of 32 images cannot be used" in error_of(ldata("commit", "own.plan"), 1)
    committed = json_of(ldata("commit", "own.plan", "--on-error", "quarantine", "--json"))
    assert [image["record_id"] for image in committed["quarantined"]] == [bad.relative_to(source).as_posix()]


def test_gc_passes_a_planned_cache_over(planned: Path, ldata: Callable) -> None:
    ldata("build", "--plan", planned, "--task", "1/1")
    result = ldata("gc", "--cache", "root")
    assert result.exit_code == 0
    assert result.stderr.count("waits for `ldata commit` of a plan") == 2
    assert ldata("commit", planned).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plan", "cells.plan"], ["--plan", "--task"]),
        (["--task", "1/2"], ["--plan", "--task"]),
        (["--plan", "cells.plan", "--task", "0/2"], ["--task 0/2", "count from 1"]),
        (["--plan", "cells.plan", "--task", "3/2"], ["--task 3/2"]),
        (["--plan", "cells.plan", "--task", "1-2"], ["--task '1-2'", "3/40"]),
        (["--plan", "cells.plan", "--task", "1/2", "cells", "--size", "64"], ["SOURCE", "--size", "not with --plan"]),
        (["--plan", "cells.plan", "--task", "1/2", "--cache", "x", "--max-bad", "3"], ["--cache", "--max-bad"]),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], words: list[str], ldata, error_of, scratch) -> None:
    message = error_of(ldata("build", *arguments), 2)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("command", [("build", "--task", "1/1", "--plan"), ("commit",)])
def test_plan_that_is_none(command: tuple[str, ...], scratch: Path, ldata: Callable, error_of: Callable) -> None:
    assert "none.plan is missing" in error_of(ldata(*command, "none.plan"), 1)
    Path("none.plan").write_bytes(b"something else")
    assert "none.plan cannot be read as HDF5" in error_of(ldata(*command, "none.plan"), 1)


def test_plan_into_a_folder_that_is_not_there(scratch: Path, cells: Path, ldata: Callable, error_of: Callable) -> None:
    message = error_of(ldata("plan", cells, *BUILD, "--cache", "root", "--out", "none/cells.plan"), 2)
    assert "none/cells.plan: there is no folder " in message
    assert not Path("root").exists()
