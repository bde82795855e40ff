from __future__ import annotations

import pytest

from . import memory

pytestmark = pytest.mark.torture


def test_everything_survives(tmp_path):
    tally = memory.run(tmp_path, seed=1, count=4, report=lambda fault, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 4
