from __future__ import annotations

import os

import pytest

from . import build_kills

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(os.name == "nt", reason="forks and signals are POSIX"),
]

# A worker and the own process of builds with two workers, and one at a call to the disk.
SEED = 1185


def test_everything_survives(tmp_path):
    tally = build_kills.run(tmp_path, seed=SEED, count=3, report=lambda fault, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 3
