"""Pieces of Markdown pages: values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from leukemia_models.judging.resampling import Interval

UNDEFINED = "undefined"


def markdown_table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table; a ``|`` within a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


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


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
