"""Figures replaced by small blank files, for tests of other outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
from matplotlib.figure import Figure

from leukemia_models.reports import style, summary_page
from leukemia_models.runs import recorder

_DRAWING = (summary_page, recorder)
_drawn: set[object] = set()


def _leave_blank(figure: Figure) -> None:
    figure.set_layout_engine(None)
    figure.draw = lambda renderer: None


def _first_of_a_kind(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw a figure once for all with the same names of classes and the same optional parts; empty ones then."""

    @functools.wraps(draw)
    def drawn(*arguments: object, **options: object) -> Figure:
        classes = tuple(each for each in arguments if isinstance(each, tuple) and all(isinstance(n, str) for n in each))
        kind = draw.__name__, classes, *(name for name, value in options.items() if value is not None)
        if kind in _drawn:
            return Figure((1, 1))
        _drawn.add(kind)
        return draw(*arguments, **options)

    return drawn


def _drawing(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if name.startswith("draw_")]


@contextmanager
def blank_figures() -> Iterator[None]:
    """Write blank figures, the slowest files of a run; tests/leukemia_models/reports tests real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "lay_out", _leave_blank)
        patch.setattr(style, "DOTS_PER_INCH", 4)
        for module in _DRAWING:
            for name in _drawing(module):
                patch.setattr(module, name, _first_of_a_kind(getattr(module, name)))
        yield
