"""What every command prints with: notes on stderr, results on stdout, numbers for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_note(text: str) -> None:
    """Tell something on stderr, where it disturbs no script."""
    click.echo(text, err=True)


def format_bytes(num_bytes: int) -> str:
    """Bytes in decimal units, such as ``539 MB``."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces, the first to the left and the rest to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)
