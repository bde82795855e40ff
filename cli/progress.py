"""Progress bars; apart from ``output`` because loading them takes longer than a command that needs none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from cli.console import CONSOLE, Verbosity


@contextmanager
def progress_bar(total: int, description: str, unit: str = "img", done: int = 0) -> Iterator[tqdm[Any]]:
    """Progress bar with rate and time left on stderr, from `done` on; silent where stderr is no terminal."""
    # None draws nothing where stderr is no terminal.
    disable = True if CONSOLE.verbosity is Verbosity.QUIET else None
    with tqdm(total=total, initial=done, desc=description, unit=f" {unit}", disable=disable) as bar:
        yield bar
