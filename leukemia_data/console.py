"""Notes, warnings and progress of work, through a console that the caller passes.

No function of the library prints: one that takes long or decides something takes ``console: Console = NULL_CONSOLE``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")


class Progress(Protocol):
    """Progress of one piece of work."""

    def update(self, num: int = 1, /) -> object:
        """Count `num` more units; functions that only count take this method: ``progress=bar.update``."""
        ...

    def show(self, **values: str) -> None:
        """Show named values beside the progress until the next call, such as ``show(loss="0.412")``."""
        ...


class Console(Protocol):
    """Receives lines, from any thread and while progress is shown, and progress."""

    def note(self, text: str) -> None:
        """Show a line on the work, which a console may omit; remarks on data or settings begin with ``note: ``."""
        ...

    def warn(self, text: str) -> None:
        """Show a warning, given without ``warning: ``."""
        ...

    def progress(
        self, total: int | None, what: str, unit: str = "img", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """Show progress until the context ends.

        Parameters
        ----------
        total
            Total number of units; None if unknown.
        what
            The work in a word or two, such as ``building`` or ``epoch 3/30``.
        unit
            Of `total`: ``img``, ``batch``, ``step``, or ``B`` for bytes.
        done
            Number of units done before, as by a resumed run.
        """
        ...


class BarProgress:
    """A tqdm bar; see :class:`Progress`."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def update(self, num: int = 1, /) -> None:
        """Count `num` units more."""
        self._bar.update(num)

    def show(self, **values: str) -> None:
        """Show values behind the bar when it is drawn next."""
        self._bar.set_postfix(values, refresh=False)


class NullProgress:
    """Shows nothing; see :class:`Progress`."""

    def update(self, num: int = 1, /) -> None:
        """Count nothing."""

    def show(self, **values: str) -> None:
        """Show nothing."""


class NullConsole:
    """Shows nothing; see :class:`Console`."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Show nothing."""

    def progress(
        self, total: int | None, what: str, unit: str = "img", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """Return a context that shows nothing."""
        return nullcontext(NullProgress())


NULL_CONSOLE: Console = NullConsole()


def tracked(items: Iterable[T], console: Console, total: int | None, what: str, unit: str = "img") -> Iterator[T]:
    """Yield the items, and count each as done when the next one is requested; see :meth:`Console.progress`."""
    with console.progress(total, what, unit) as bar:
        for item in items:
            yield item
            bar.update()
