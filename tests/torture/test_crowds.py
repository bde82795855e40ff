"""The short version: two crowds; `python -m tests.torture crowds` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("runs come from a process that forks", allow_module_level=True)

from .crowds import draw_crowd, run

SEED, COUNT = 2, 2


@pytest.mark.torture
def test_builds_and_gc_at_once_leave_what_one_build_leaves(tmp_path: Path) -> None:
    crowds = [draw_crowd(number)[1] for number in range(SEED, SEED + COUNT)]
    assert any(member.killed is not None for members in crowds for member in members)
    told: list[tuple[str, str]] = []
    tally = run(tmp_path, SEED, COUNT, lambda fault, outcome: told.append((fault, outcome)), num_images=150)
    assert not tally.lost, "\n".join(tally.lost)
    assert (tally.tried, tally.survived, len(told)) == (COUNT, COUNT, COUNT)
