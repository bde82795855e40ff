"""A console that keeps its notes, warnings and progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class ListedProgress:
    total: int | None
    what: str
    unit: str
    done: int
    shown: list[dict[str, str]] = field(default_factory=list)
    is_open: bool = True

    def update(self, num: int = 1, /) -> None:
        self.done += num

    def show(self, **values: str) -> None:
        self.shown.append(values)


@dataclass
class ListConsole:
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bars: list[ListedProgress] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def progress(self, total: int | None, what: str, unit: str = "img", done: int = 0) -> Iterator[ListedProgress]:
        bar = ListedProgress(total, what, unit, done)
        self.bars.append(bar)
        try:
            yield bar
        finally:
            bar.is_open = False
