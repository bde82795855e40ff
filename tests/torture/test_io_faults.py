from __future__ import annotations

import pytest

from . import io_faults

pytestmark = pytest.mark.torture


def test_everything_survives(tmp_path):
    tally = io_faults.run(tmp_path, seed=1, count=8, report=lambda fault, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 8
