"""Progress bars; apart from ``output`` because loading them takes longer than a command that needs none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def progress_bar(total: int, description: str, unit: str = "img", done: int = 0) -> Iterator[tqdm[Any]]:
    """Progress bar with rate and time left on stderr, from `done` on; silent where stderr is no terminal."""
    with tqdm(
        total=total, initial=done, desc=description, unit=f" {unit}", disable=None, dynamic_ncols=True, smoothing=0.1
    ) as bar:
        yield bar
