from __future__ import annotations

import pytest

from . import changing_source

pytestmark = pytest.mark.torture


def test_everything_survives(tmp_path):
    tally = changing_source.run(tmp_path, seed=1, count=1, report=lambda fault, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 1
