from __future__ import annotations

from pathlib import Path

import pytest

from . import source_layouts
from .layouts.answer import Answer


@pytest.mark.parametrize("count", [15, pytest.param(100, marks=pytest.mark.torture)])
def test_layouts_are_read_as_they_are_meant_or_refused_with_the_truth(tmp_path: Path, count: int) -> None:
    tally = source_layouts.run(tmp_path, seed=0, count=count, report=lambda fault, outcome: None)
    assert not tally.lost, "\n".join(tally.lost)
    assert not list(tmp_path.iterdir())


def test_what_is_lost_names_its_seed_and_describes_its_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that refuses everything does not pass, and the table of outcomes counts that."""
    monkeypatch.setattr(source_layouts, "ask", lambda sources, options: Answer(refusal="no"))
    reports: list[str] = []
    tally = source_layouts.run(tmp_path, seed=3, count=8, report=lambda fault, outcome: reports.append(outcome))
    assert (tally.tried, tally.survived, len(tally.lost)) == (8, 0, 8)
    assert "survived" not in reports
    assert len(reports) == 8
    assert tally.lost[0].startswith("seed 3: ")
    assert "given: given" in tally.lost[0]
    kinds = {end for (row, end), _ in tally.outcomes.items() if row.startswith("plain")}
    assert kinds == {"refused though plain"}
