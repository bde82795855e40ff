"""What the commands load: light ones must start at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.ldata import main as ldata_main
from cli.ltrain import main as ltrain_main

HEAVY = {"torch", "matplotlib", "pandas", "sklearn"}
LDATA_COMMANDS = [
    "sample",
    "scan",
    "build",
    "plan",
    "commit",
    "stats",
    "info",
    "list",
    "recipes",
    "preview",
    "audit",
    "recover-subjects",
    "bench",
    "push",
    "pull",
    "verify",
    "convert",
    "gc",
    "completion",
]
LTRAIN_COMMANDS = [
    "train",
    "kfold",
    "plans",
    "models",
    "evaluate",
    "compare",
    "predict",
    "submit",
    "preview-augment",
    "batchnorm-demo",
    "completion",
]
_SCRIPT = """
import sys, json
from cli.{tool} import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code in (0, {exit_code}), (arguments, end.code)
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def modules_after(tool: str, *command_lines: list[str], exit_code: int = 0) -> tuple[str, set[str]]:
    """Output of some commands in one fresh process, and the top-level modules it has loaded; 0 is any command's end."""
    environment = {name: value for name, value in os.environ.items() if name != "LDATA_SOURCE"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(tool=tool, exit_code=exit_code), json.dumps(command_lines)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**environment, "PYTHONUTF8": "1"},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    output, _, modules = done.stdout.strip().rpartition("\n")
    return output, set(json.loads(modules))


@pytest.mark.parametrize(("tool", "commands"), [("ldata", LDATA_COMMANDS), ("ltrain", LTRAIN_COMMANDS)])
def test_help_shows_examples_and_loads_nothing_heavy(tool: str, commands: list[str]) -> None:
    lines = [["--help"], *([command, "--help"] for command in commands)]
    output, modules = modules_after(tool, *lines)
    pages = output.split("Usage: ")[1:]
    assert len(pages) == len(lines)
    for page, line in zip(pages, lines, strict=True):
        shown = [text.strip() for text in page.splitlines()]
        name = "" if line == ["--help"] else f" {line[0]}"
        assert page.startswith(f"-c{name} [OPTIONS]"), page
        assert any(text.startswith(f"{tool}{name} ") or text == f"{tool}{name}" for text in shown), page
        assert "Examples:" in shown
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("group", [ldata_main, ltrain_main])
def test_short_help_in_the_list_names_every_command(group: object, ldata: Callable, ltrain: Callable) -> None:
    run, commands = (ldata, LDATA_COMMANDS) if group is ldata_main else (ltrain, LTRAIN_COMMANDS)
    listed = run("--help").stdout.split("Commands:")[1].split()
    assert set(commands) <= set(listed)


def test_bare_ldata_shows_its_help(ldata: Callable) -> None:
    result = ldata()
    assert result.exit_code == 2
    assert "Commands:" in result.output


@pytest.mark.parametrize("tool", ["ldata", "ltrain"])
def test_version(tool: str, ldata: Callable, ltrain: Callable) -> None:
    result = {"ldata": ldata, "ltrain": ltrain}[tool]("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{tool}, version ")


def test_stats_loads_neither_torch_nor_matplotlib(caches: Path) -> None:
    output, modules = modules_after("ldata", ["stats", "--cache", str(caches), "--size", "64", "--report-estimator"])
    assert "Normalize" in output
    assert modules.isdisjoint(HEAVY)


def test_networks_and_plans_are_listed_without_torch() -> None:
    output, modules = modules_after("ltrain", ["models"], ["plans"], ["plans", "report-a-resnet50", "--json"])
    assert "resnet152" in output
    assert '"model": "resnet50"' in output
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "line",
    [
        ["evaluate", "no run"],
        ["predict", "no run"],
        ["submit", "no run", "list.csv"],
        ["predict", "run", "no image.bmp"],
        ["evaluate", "run", "no folder"],
        ["submit", "run", "no list.csv"],
    ],
    ids=" ".join,
)
def test_a_wrong_path_is_refused_without_loading_a_library_of_the_work(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    _, modules = modules_after("ltrain", line, exit_code=2)
    assert modules.isdisjoint(HEAVY | {"numpy"})


def test_build_with_nothing_to_do_loads_no_library_of_the_work(caches: Path, cells: Path) -> None:
    line = ["build", str(cells), "--size", "64", "--recipe", "raw", "--cache", str(caches)]
    output, modules = modules_after("ldata", line)
    assert output.startswith("Nothing to do: 32 images unchanged")
    assert modules.isdisjoint(HEAVY | {"cv2", "h5py", "joblib", "numpy"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["nonsense", "ldata --help"]),
        (["build", "--sizes", "3"], ["--sizes", "ldata build --help"]),
        (["build", "--size", "x"], ["--size", "'x'"]),
        (["sample"], ["OUT"]),
        (["gc", "surplus"], ["surplus"]),
    ],
)
def test_wrong_command_line_is_one_line(
    arguments: list[str], words: list[str], ldata: Callable, error_of: Callable
) -> None:
    result = ldata(*arguments)
    message = error_of(result, 2)
    assert all(word in message for word in words), message
    assert result.stderr.count("\n") == 1


def test_wrong_option_without_a_command_is_one_line(ltrain: Callable, error_of: Callable) -> None:
    result = ltrain("--epochs", 0)
    assert "--epochs" in error_of(result, 2)
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_file_without_permission_is_one_line(own_caches: Path, ldata: Callable, error_of: Callable) -> None:
    locked = own_caches / "cells"
    locked.chmod(0)
    try:
        assert str(locked) in error_of(ldata("stats", "--cache", own_caches, "--size", 64), 1)
    finally:
        locked.chmod(0o755)
