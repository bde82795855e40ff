"""What ``ldata build --engine`` refuses; the engines themselves are tested beside their modules."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "tcp://head:8786"], ["--address tcp://head:8786", "--engine dask"]),
        (["--engine", "spark"], ["spark", "'dask'"]),
        (["--engine", "dask", "--address", "x:1", "--n-jobs", "2"], ["--n-jobs with --address"]),
        (["--engine", "dask", "--address", "nonsense"], ["--address 'nonsense'", "HOST:PORT"]),
        (["--engine", "dask", "--address", "ftp://x:1"], ["--address 'ftp://x:1'", "tcp://HOST:PORT"]),
        (["--engine", "dask", "--address", "none.json"], ["none.json", "no such scheduler file"]),
        (["--engine", "ray", "--address", "tcp://x:1"], ["--address 'tcp://x:1'", "ray://HOST:PORT"]),
    ],
)
def test_wrong_requests(
    arguments: list[str], words: list[str], cells: Path, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    message = error_of(ldata("build", cells, "--size", 64, "--recipe", "raw", *arguments), 2)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_address_where_nobody_listens_is_one_line_at_once(
    engine: str, cells: Path, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"127.0.0.1:{port}"
    result = ldata("build", cells, "--size", 64, "--recipe", "raw", "--engine", engine, "--address", address)
    assert f"nothing answers at --address {address}" in error_of(result, 1)


@pytest.mark.parametrize(("engine", "library"), [("dask", "distributed"), ("ray", "ray")])
def test_missing_extra_is_one_line_with_its_cure(
    engine: str,
    library: str,
    cells: Path,
    scratch: Path,
    ldata: Callable,
    error_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, f"leukemia_data.building.{engine}_engine", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    result = ldata("build", cells, "--size", 64, "--recipe", "raw", "--engine", engine, "--address", "127.0.0.1:1")
    assert error_of(result, 2).endswith(f'is not installed; pip install "leukemia-cells[{engine}]"')
