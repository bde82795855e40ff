"""What work says while it runs: lines, cautions and progress, through an object that the caller hands in.

No function of the library prints. One that takes long, or that decides something a person should know of, takes
``console: Console = NULL_CONSOLE``; programs hand in one that prints. What a result holds is in the result, too: who
hands in no console misses no caution that matters later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")


class Progress(Protocol):
    """How far one piece of work is."""

    def update(self, num: int = 1, /) -> object:
        """Count `num` units more. Functions that only count take this method: ``progress=bar.update``."""
        ...

    def show(self, **values: str) -> None:
        """Show named values beside the progress until the next call, such as ``show(loss="0.412")``."""
        ...


class Console(Protocol):
    """Where work says what it does. Lines may come from any thread, and while progress is shown."""

    def note(self, text: str) -> None:
        """Say in words how the work goes or what it found; a console may leave it out.

        The text is shown as it is. A remark on the data or the settings begins with ``note: ``.
        """
        ...

    def warn(self, text: str) -> None:
        """Say a caution, which every console that shows anything shows; the text comes without ``warning: ``."""
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
            What is done, in a word or two, such as ``building`` or ``epoch 3/30``.
        unit
            Of `total`: ``img``, ``batch``, ``step``, or ``B`` for bytes.
        done
            Number of units that were done before, as by a run that is resumed.
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
    """Says nothing; see :class:`Console`."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def progress(
        self, total: int | None, what: str, unit: str = "img", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """Return a context that shows nothing."""
        return nullcontext(NullProgress())


NULL_CONSOLE: Console = NullConsole()


def tracked(items: Iterable[T], console: Console, total: int | None, what: str, unit: str = "img") -> Iterator[T]:
    """Yield the items, and count each as done when the next one is asked for; see :meth:`Console.progress`."""
    with console.progress(total, what, unit) as bar:
        for item in items:
            yield item
            bar.update()
