"""What both programs print: results on stdout, notes, warnings and progress on stderr."""

from __future__ import annotations

import enum
import io
import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from leukemia_data.caches.codec import RAW
from leukemia_data.caches.manifest import Manifest
from leukemia_data.console import BarProgress, NullProgress, Progress
from leukemia_data.files.text import printable

CAUTIONS = ("warning: ", "caution: ")
"""What a line begins with that is printed in any case."""
LINE_EVERY_S = 30.0


class Verbosity(enum.Enum):
    """How much is printed on stderr; cautions and errors always are."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


class TerminalConsole:
    """Prints lines on stderr; draws bars where stderr is a terminal."""

    verbosity = Verbosity.NORMAL

    def note(self, text: str) -> None:
        """Print a line, unless quiet; a text that begins with one of `CAUTIONS` in any case."""
        if self.verbosity is not Verbosity.QUIET or text.startswith(CAUTIONS):
            _print(text)

    def warn(self, text: str) -> None:
        """Print a caution."""
        _print(f"warning: {text}")

    @contextmanager
    def progress(self, total: int | None, what: str, unit: str = "img", done: int = 0) -> Iterator[Progress]:
        """Draw a bar with rate and time left; without a terminal, print lines if verbose and nothing else."""
        if self.verbosity is Verbosity.QUIET or not (_is_terminal() or self.verbosity is Verbosity.VERBOSE):
            yield NullProgress()
        elif not _is_terminal():
            yield LineProgress(self, total, what, unit, done)
        else:
            # Loading it takes longer than a command with nothing to do.
            from tqdm import tqdm

            with tqdm(total=total, initial=done, desc=what, unit=f" {unit}", dynamic_ncols=True, smoothing=0.1) as bar:
                yield BarProgress(bar)

    @contextmanager
    def at(self, verbosity: Verbosity) -> Iterator[None]:
        """Print as much as `verbosity` says until the context ends."""
        earlier, self.verbosity = self.verbosity, verbosity
        try:
            yield
        finally:
            self.verbosity = earlier


CONSOLE = TerminalConsole()


class LineProgress:
    """Prints how far work is, at most every `LINE_EVERY_S` seconds: for the logs of batch jobs."""

    def __init__(self, console: TerminalConsole, total: int | None, what: str, unit: str, done: int) -> None:
        self._console, self._total, self._what, self._unit = console, total, what, unit
        self._num_before = self._num = done
        self._start_s = self._printed_s = time.monotonic()

    def update(self, num: int = 1, /) -> None:
        """Count, and print a line if the last one is old."""
        self._num += num
        now_s = time.monotonic()
        if now_s - self._printed_s < LINE_EVERY_S:
            return
        self._printed_s = now_s
        rate = (self._num - self._num_before) / (now_s - self._start_s)
        of_all = "" if self._total is None else f" of {self._total:,}"
        self._console.note(f"{self._what}: {self._num:,}{of_all} {self._unit}, {rate:,.1f} {self._unit}/s")

    def show(self, **values: str) -> None:
        """Show nothing: notes have the numbers of an epoch."""


@contextmanager
def logged_to_stderr() -> Iterator[None]:
    """Print what libraries log, from INFO upwards, until the context ends."""
    handler, root = logging.StreamHandler(sys.stderr), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    earlier_level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(earlier_level)
        root.removeHandler(handler)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _print(text: str) -> None:
    """Print a line above the bars that are drawn."""
    if "tqdm" not in sys.modules:
        click.echo(printable(text), file=sys.stderr)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(printable(text), file=sys.stderr)


# JSON leaves them as they are; a terminal may obey the first, and no text stream can encode the second.
_UNPRINTABLE = re.compile("[\x7f-\x9f\ud800-\udfff]")
# Error handlers of streams by default: Python's, and that of the C locale.
_FAILING = ("strict", "surrogateescape")


def escape_what_streams_lack() -> None:
    """Make this process's stdout and stderr write escapes such as ``\\u82bd`` for letters that their encodings lack.

    Another error handler, as of ``PYTHONIOENCODING=cp1252:replace``, is kept.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _FAILING:
            stream.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a JSON document on stdout, with JSON's own escapes for letters that its encoding lacks."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        # Halves of pairs are escaped in any case.
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "surrogatepass")
    except UnicodeError:
        text = json.dumps(value, indent=2)
    click.echo(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text), file=sys.stdout)


def print_text(text: str) -> None:
    """Print a result for people on stdout; control characters in names are escaped."""
    click.echo(printable(text), file=sys.stdout)


def print_result(found: Any, lines: Iterable[str], *, as_json: bool) -> None:  # noqa: ANN401 - any JSON value
    """Print a result on stdout: as JSON, `found` or its ``to_dict()``; or `lines` for people."""
    if as_json:
        print_json(found.to_dict() if hasattr(found, "to_dict") else found)
        return
    for line in lines:
        print_text(line)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns aligned with spaces, the first to the left and the rest to the right."""
    cells = [header, *rows]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    return "\n".join("  ".join([row[0].ljust(first), *map(str.rjust, row[1:], widths)]).rstrip() for row in cells)


def codec_text(manifest: Manifest) -> str:
    """Return how a cache stores its images, and how many times smaller than raw they are."""
    return manifest.codec if manifest.codec == RAW else f"{manifest.codec} {manifest.compression_ratio:.2f}x"
