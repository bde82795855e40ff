"""Runs with blank, small figures, for tests of other outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from matplotlib.figure import Figure

from leukemia_models.reports import style


def _leave_blank(figure: Figure) -> None:
    figure.set_layout_engine(None)
    figure.draw = lambda renderer: None


@contextmanager
def blank_figures() -> Iterator[None]:
    """Write blank figures; tests/leukemia_models/reports tests real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "lay_out", _leave_blank)
        patch.setattr(style, "DOTS_PER_INCH", 4)
        yield
