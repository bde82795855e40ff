"""Pieces of Markdown pages: values in, text out.

Names come from files: :func:`code` and :func:`plain` make of any text one that a page shows as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from leukemia_data.files.plain_text import printable
from leukemia_models.judging.resampling import Interval

UNDEFINED = "undefined"
_BACKTICKS = re.compile("`+")
# A backslash before a letter, a low line within a word and brackets without an address behind them mean nothing.
_MARKUP = re.compile(r"\\(?=[!-/:-@\[-`{-~]|$)|[`*<]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|&(?=#?\w+;)|~(?=~)")


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table of Markdown cells; a ``|`` within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def code(text: str) -> str:
    """Return a text as code: shown as it is, whatever it holds.

    >>> code("hem"), code("a`b")
    ('`hem`', '``a`b``')
    """
    shown = _one_line(text)
    longest = max((len(run) for run in _BACKTICKS.findall(shown)), default=0)
    fence = "`" * (longest + 1)
    # Markdown takes one blank from either side, and would join a backtick at an end with the fence.
    needs_blanks = bool(shown.strip()) and (shown[0] in "` " or shown[-1] in "` ")
    return f"{fence} {shown} {fence}" if needs_blanks else f"{fence}{shown or ' '}{fence}"


def plain(value: object) -> str:
    r"""Return a value for the middle of a line, with all that Markdown or HTML would take for markup escaped.

    >>> print(plain("report_a"), plain("<b>*x*"))
    report_a \<b>\*x\*
    """
    return _MARKUP.sub(r"\\\g<0>", _one_line(str(value)))


def number_text(value: float | None) -> str:
    """Three decimals, or ``undefined``."""
    return UNDEFINED if value is None else f"{value:.3f}"


def interval_text(interval: Interval | None) -> str:
    """``0.812 - 0.934``, or a dash where there is none."""
    return "-" if interval is None else f"{interval.low:.3f} - {interval.high:.3f}"


def without_repeats(paragraphs: Iterable[str]) -> list[str]:
    """Return the paragraphs once each, without those that another one begins with."""
    unique = list(dict.fromkeys(paragraphs))
    return [text for text in unique if not any(other != text and other.startswith(text) for other in unique)]


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield nested settings as ``optimizer.lr`` and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _one_line(text: str) -> str:
    return printable(text.replace("\n", " ").replace("\t", " "))


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
