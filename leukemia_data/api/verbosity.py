"""What functions of the public API say: cautions as Python warnings, and with ``verbose=True`` notes and progress."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.console import Console, NullConsole, Progress
from leukemia_data.errors import UsageError

if TYPE_CHECKING:
    from tqdm import tqdm

_PACKAGES = tuple(f"{Path(__file__).parents[2] / name}{os.sep}" for name in ("leukemia_data", "leukemia_models"))


class LeukemiaWarning(UserWarning):
    """A caution about data, settings or results."""


class QuietConsole(NullConsole):
    """Passes cautions on as :class:`LeukemiaWarning`; says nothing else."""

    def warn(self, text: str) -> None:
        """Warn, at the line that called the library."""
        warnings.warn(text, LeukemiaWarning, stacklevel=_num_own_frames())


class VerboseConsole(QuietConsole):
    """Writes notes on stderr and shows progress, in a notebook as a widget where ipywidgets is installed."""

    def note(self, text: str) -> None:
        """Write a line."""
        from tqdm.auto import tqdm

        tqdm.write(text, file=sys.stderr)

    @contextmanager
    def progress(self, total: int | None, what: str, unit: str = "img", done: int = 0) -> Iterator[Progress]:
        """Show a bar with rate and time left."""
        from tqdm.auto import tqdm

        with tqdm(total=total, initial=done, desc=what, unit=f" {unit}", smoothing=0.1) as bar:
            yield _Bar(bar)


class _Bar:
    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, num: int = 1, /) -> None:
        """Count `num` units more."""
        self._bar.update(num)

    def show(self, **values: str) -> None:
        """Show values behind the bar when it is drawn next."""
        self._bar.set_postfix(values, refresh=False)


def _num_own_frames() -> int:
    """How far up the stack the first line is that is not the library's, counted from the caller."""
    frame, number = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGES):
        frame, number = frame.f_back, number + 1
    return number


def console_of(verbose: bool | Console) -> Console:
    """Return the console that an argument `verbose` means.

    Raises
    ------
    UsageError
        If it is neither True, False nor a console.
    """
    if isinstance(verbose, bool):
        return VerboseConsole() if verbose else QuietConsole()
    if not all(hasattr(verbose, name) for name in ("note", "warn", "progress")):
        raise UsageError(f"verbose must be True, False or a console, got {verbose!r:.60}")
    return verbose
