"""The one scenario that every test run tries, shortly; ``make test-torture`` tries all of them."""

from __future__ import annotations

import pytest

from . import bit_flips


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.torture)])
def test_all_damage_is_found_and_mended(tmp_path, count):
    tally = bit_flips.run(tmp_path, seed=1, count=count, report=lambda damage, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == count
