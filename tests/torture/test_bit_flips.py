from __future__ import annotations

from . import bit_flips


def test_all_damage_is_found_and_mended(tmp_path):
    tally = bit_flips.run(tmp_path, seed=1, count=8, report=lambda damage, outcome: None)
    assert tally.lost == ()
    assert tally.tried == tally.survived == 8
