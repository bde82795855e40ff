"""Runs whose figures are not the point: their files are written, blank and small."""

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
    """Leave out what takes longest in writing a run's files and is tested in tests/leukemia_models/reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "lay_out", _leave_blank)
        patch.setattr(style, "DOTS_PER_INCH", 4)
        yield
