"""The short version: a few trainings, killed a few times; `python -m tests.torture training_kills` is the long one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("forks a process that has torch loaded, which is safe on Linux only", allow_module_level=True)

import torch

from .run_check import broken_files, differences
from .training_kills import run


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.torture
@pytest.mark.usefixtures("_one_thread")
def test_killed_trainings_lose_a_step_at_most_and_end_the_same(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    tally = run(tmp_path, seed=1, count=3, report=lambda done, outcome: told.append((done, outcome)), kinds=["plan"])
    assert not tally.lost
    assert tally.tried == tally.survived == 3
    assert told


def test_the_checks_find_what_is_wrong(tmp_path: Path) -> None:
    """A check that finds nothing anywhere would let everything pass."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "history.csv").write_text("epoch,seconds\n1,2.5\n", encoding="utf-8")
        (folder / "results.json").write_text("{}\n", encoding="utf-8")
    assert list(broken_files(one)) == []
    (other / "history.csv").write_text("epoch,seconds\n1,9.0\n", encoding="utf-8")
    assert list(differences(one, other)) == []
    (other / "history.csv").write_text("epoch,seconds\n2,2.5\n", encoding="utf-8")
    (other / "more.txt").write_text("\n", encoding="utf-8")
    assert list(differences(one, other)) == ["more.txt is only in one of the two", "history.csv differs"]
    for name, data in (
        ("results.json", b"{"),
        ("history.csv", b"epoch,seconds\n1"),
        ("best.safetensors", b"0123"),
        ("roc.png", b"\x89PNG"),
        ("summary.md", b"half a li"),
    ):
        (one / name).write_bytes(data)
    assert [text.split(" ")[0] for text in broken_files(one)] == sorted(
        ["results.json", "history.csv", "best.safetensors", "roc.png", "summary.md"]
    )
