"""What ``ldata build --engine`` refuses; the engines themselves are tested beside their modules."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..leukemia_data.helpers import python_environment


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "tcp://head:8786"], ["address tcp://head:8786", "--engine dask"]),
        (["--engine", "spark"], ["spark", "'dask'"]),
        (["--engine", "dask", "--address", "x:1", "--n-jobs", "2"], ["--n-jobs", "--address"]),
        (["--engine", "dask", "--address", "nonsense"], ["address 'nonsense'", "HOST:PORT"]),
        (["--engine", "dask", "--address", "ftp://x:1"], ["address 'ftp://x:1'", "tcp://HOST:PORT"]),
        (["--engine", "dask", "--address", "none.json"], ["none.json", "no such scheduler file"]),
        (["--engine", "ray", "--address", "tcp://x:1"], ["address 'tcp://x:1'", "ray://HOST:PORT"]),
    ],
)
def test_wrong_requests(
    arguments: list[str], words: list[str], cells: Path, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    message = error_of(ldata("build", cells, "--size", 64, "--recipe", "raw", *arguments), 2)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_address_without_a_listener_is_one_line_at_once(
    engine: str, cells: Path, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"127.0.0.1:{port}"
    result = ldata("build", cells, "--size", 64, "--recipe", "raw", "--engine", engine, "--address", address)
    assert f"nothing answers at address {address}" in error_of(result, 1)


@pytest.mark.parametrize(("engine", "library"), [("dask", "distributed"), ("ray", "ray")])
def test_missing_extra_is_one_line_with_its_cure(engine: str, library: str, cells: Path, scratch: Path) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from cli.ldata import main; main(sys.argv[1:])"
    line = ["build", str(cells), "--size", "64", "--recipe", "raw", "--engine", engine, "--address", "127.0.0.1:1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *line], capture_output=True, text=True, env=python_environment(), check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.rstrip().endswith(f'is not installed: pip install -e ".[{engine}]"')
