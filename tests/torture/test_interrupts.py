from __future__ import annotations

import os

import pytest

from . import interrupts

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(os.name == "nt", reason="forks and signals are POSIX"),
]

# SIGTERM once, and Ctrl-C twice with two workers.
SEED = 365


def test_everything_survives(tmp_path):
    tally = interrupts.run(tmp_path, seed=SEED, count=2, report=lambda fault, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 2
