"""What the library says, printed: lines and progress bars on stderr. Implements :mod:`leukemia_data.console`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.output import print_note

if TYPE_CHECKING:
    from tqdm import tqdm


class TerminalConsole:
    """Prints on stderr, where it disturbs no script; bars only where stderr is a terminal."""

    def note(self, text: str) -> None:
        """Print a line."""
        _print(text)

    def warn(self, text: str) -> None:
        """Print a caution."""
        _print(f"warning: {text}")

    @contextmanager
    def progress(self, total: int | None, what: str, unit: str = "img", done: int = 0) -> Iterator[_Bar]:
        """Show a bar with rate and time left."""
        # Takes longer to load than all of a command with nothing to do.
        from tqdm import tqdm

        with tqdm(
            total=total,
            initial=done,
            desc=what,
            unit=f" {unit}",
            disable=None,
            dynamic_ncols=True,
            smoothing=0.1,
        ) as bar:
            yield _Bar(bar)


CONSOLE = TerminalConsole()


class _Bar:
    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def update(self, num: int = 1, /) -> None:
        self._bar.update(num)

    def show(self, **values: str) -> None:
        self._bar.set_postfix(values, refresh=False)


def _print(text: str) -> None:
    """Print a line above the bars that are shown."""
    if "tqdm" not in sys.modules:
        print_note(text)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        print_note(text)
