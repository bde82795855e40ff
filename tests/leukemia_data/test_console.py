from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tqdm import tqdm

from leukemia_data.console import NULL_CONSOLE, Console, Progress, tracked

from .consoles import ListConsole


def build(num_images: int, console: Console = NULL_CONSOLE) -> int:
    """Report like the library: progress, a value, and a line during progress."""
    with console.progress(num_images, "building") as bar:
        for number in range(num_images):
            bar.show(bad=str(number))
            bar.update()
        console.note("waiting: another build")
    console.warn("one image is black")
    return num_images


def test_the_null_console_shows_nothing(capfd):
    assert build(3) == 3
    assert capfd.readouterr() == ("", "")


def test_the_null_console_hides_no_error():
    with pytest.raises(ZeroDivisionError), NULL_CONSOLE.progress(None, "failing"):
        raise ZeroDivisionError


def test_a_console_receives_everything():
    console = ListConsole()
    build(2, console)
    [bar] = console.bars
    assert (bar.total, bar.what, bar.unit, bar.done, bar.is_open) == (2, "building", "img", 2, False)
    assert bar.shown == [{"bad": "0"}, {"bad": "1"}]
    assert (console.notes, console.warnings) == (["waiting: another build"], ["one image is black"])


def test_tracked_items_are_counted_once_they_are_done_with():
    console = ListConsole()
    seen = [(item, console.bars[0].done) for item in tracked("abc", console, 3, "predict", unit="batch")]
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    [bar] = console.bars
    assert (bar.total, bar.what, bar.unit, bar.done, bar.is_open) == (3, "predict", "batch", 3, False)


def test_tracking_ends_with_the_reader():
    console = ListConsole()
    items = tracked(iter([1, 2]), console, None, "reading")
    assert next(items) == 1
    items.close()
    assert not console.bars[0].is_open
    assert console.bars[0].done == 0


def test_tracking_that_fails_ends():
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    console = ListConsole()
    with pytest.raises(OSError, match="gone"):
        list(tracked(failing(), console, 2, "reading"))
    assert (console.bars[0].done, console.bars[0].is_open) == (1, False)


class BarConsole:
    """A console with tqdm, as in a program."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def note(self, text: str) -> None:
        tqdm.write(text, file=self.stream)

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")

    @contextmanager
    def progress(self, total: int | None, what: str, unit: str = "img", done: int = 0) -> Iterator[Progress]:
        with tqdm(total=total, initial=done, desc=what, unit=unit, file=self.stream, mininterval=0) as bar:
            yield Bar(bar)


class Bar:
    def __init__(self, bar: tqdm[None]) -> None:
        self.update = bar.update
        self._bar = bar

    def show(self, **values: str) -> None:
        self._bar.set_postfix(values, refresh=False)


def test_tqdm_can_stand_behind_it():
    console = BarConsole()
    build(4, console)
    text = console.stream.getvalue()
    assert "building: 100%" in text
    assert "4/4" in text
    assert "bad=3" in text
    # A separate line, although the bar was shown.
    assert "waiting: another build" in text.replace("\r", "\n").splitlines()
    assert text.endswith("warning: one image is black\n")


def test_tqdm_can_show_an_unknown_total():
    console = BarConsole()
    assert list(tracked("ab", console, None, "listing")) == ["a", "b"]
    assert "listing: 2img" in console.stream.getvalue()


def test_it_loads_the_standard_library_alone():
    code = "import sys, leukemia_data.console; print(sorted({'tqdm', 'click', 'numpy', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
