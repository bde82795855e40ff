from __future__ import annotations

import os

import pytest

from . import full_disk

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(os.name == "nt", reason="forks and signals are POSIX"),
]


def test_everything_survives(tmp_path):
    tally = full_disk.run(tmp_path, seed=1, count=2, report=lambda fault, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 2
