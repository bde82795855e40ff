"""Fixtures of the command line's tests: commands run in this process or in one of their own, small caches and runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import cli.ldata
import cli.ltrain

from ..blank_figures import blank_figures
from ..forked_python import forked_python

Run = Callable[..., Result]
OLD_NS = 1_600_000_000_000_000_000


def _run(group: Any, arguments: Sequence[object], env: dict[str, str] | None) -> Result:
    # The environment of the developer must not affect the tests.
    environment: dict[str, str | None] = {"LDATA_SOURCE": None, "LTRAIN_CACHE": None, **(env or {})}
    with blank_figures():
        result = CliRunner().invoke(group, [str(argument) for argument in arguments], env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="session")
def ldata() -> Run:
    """``ldata("build", source, env=None)``: run the command here; an exception that is no exit is raised."""
    return lambda *arguments, env=None: _run(cli.ldata.main, arguments, env)


@pytest.fixture(scope="session")
def ltrain() -> Run:
    """``ltrain("evaluate", run)``: run the command here, on one thread."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _run(cli.ltrain.main, arguments, env)
        finally:
            torch.set_num_threads(before)

    return run


@pytest.fixture(scope="session")
def json_of() -> Callable[[Result], Any]:
    """``json_of(result)``: what a successful command with --json printed; nothing but JSON may be on stdout."""

    def parse(result: Result) -> Any:
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return parse


@pytest.fixture(scope="session")
def error_of() -> Callable[[Result, int], str]:
    """``error_of(result, exit_code)``: the only line that starts with ``Error: ``, the last of stderr."""

    def parse(result: Result, exit_code: int) -> str:
        assert result.exit_code == exit_code, result.output
        assert "Traceback" not in result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, result.stderr
        assert not result.stderr.startswith("Usage:")
        return errors[0].removeprefix("Error: ")

    return parse


@pytest.fixture(scope="session")
def start_process() -> Callable[..., subprocess.Popen[str]]:
    """``start_process("ldata", "build", ..., cwd=...)``: the command in a process group of its own.

    ``python=[sys.executable]`` starts an interpreter, whose group has the processes that it starts, too.
    """

    def start(tool: str, *arguments: object, cwd: Path, python: Sequence[str] = ()) -> subprocess.Popen[str]:
        # Whoever was started in the background ignores SIGINT, and so would its children.
        listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        script = f"{listen}; from cli.{tool} import main; main()"
        environment = {name: value for name, value in os.environ.items() if name != "LDATA_SOURCE"}
        return subprocess.Popen(
            [*(python or forked_python()), "-c", script, *map(str, arguments)],
            cwd=cwd,
            env={**environment, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=os.name == "posix",
        )

    return start


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def age_files() -> Callable[[Path], None]:
    """``age_files(folder)``: as if every file had been written long ago, so that builds trust its times at once."""

    def age(folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_mtime_ns != OLD_NS:
                os.utime(path, ns=(OLD_NS, OLD_NS))
        # No program can set a change time. It is trusted when the system's clock has ticked once more.
        time.sleep(0.03)

    return age


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory, sample_tree: Path, age_files: Callable[[Path], None]) -> Path:
    """The generated sample (8 subjects with 4 cells each), written long ago. Read it, never change it."""
    folder = tmp_path_factory.mktemp("source") / "cells"
    shutil.copytree(sample_tree, folder)
    age_files(folder)
    return folder


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory, cells: Path, ldata: Run) -> Path:
    """Cache root with the sample at 64 and 48 px, recipe raw, named ``cells``. Read it, never change it."""
    root = tmp_path_factory.mktemp("caches")
    result = ldata("build", cells, "--size", 64, "--size", 48, "--recipe", "raw", "--cache", root)
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def own_caches(caches: Path, tmp_path: Path) -> Path:
    """A copy of ``caches`` that a test may damage."""
    return Path(shutil.copytree(caches, tmp_path / "own"))


@pytest.fixture(scope="session")
def dir_of_size() -> Callable[[Path, int], Path]:
    """``dir_of_size(root, size_px)``: the only cache directory of that size."""

    def find(root: Path, size_px: int) -> Path:
        [directory] = root.glob(f"*/{size_px}-*")
        return directory

    return find


@pytest.fixture(scope="session")
def train_options(caches: Path) -> list[object]:
    """Options of a tiny run, without its length and --out: the same numbers on CPUs with and without 16 bits."""
    network = ("--model", "resnet18-narrow", "--device", "cpu", "--precision", "fp32")
    return ["--cache", caches, "--size", 64, *network, "--batch-size", 8, "--lr", 0.01]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, train_options: list[object], ltrain: Run) -> Path:
    """A run of two epochs on the subject split. Read it, never change it."""
    out = tmp_path_factory.mktemp("runs") / "subject"
    result = ltrain(*train_options, "--epochs", 2, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of ``finished_run`` that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "own-run"))


@pytest.fixture(scope="session")
def files_below() -> Callable[[Path], dict[str, bytes]]:
    """``files_below(folder)``: relative name and bytes of every file."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    return read


@pytest.fixture(autouse=True)
def _no_source_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LDATA_SOURCE", raising=False)
    monkeypatch.delenv("LTRAIN_CACHE", raising=False)
