"""Results on stdout: text, tables, JSON, and how caches are named."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from leukemia_data.caches.codec import RAW
from leukemia_data.caches.manifest import Manifest
from leukemia_data.files.text import format_bytes, printable
from leukemia_data.stores.url import Location

# JSON leaves them as they are; a terminal may obey the first, and no text stream can encode the second.
_UNPRINTABLE = re.compile("[\x7f-\x9f\ud800-\udfff]")


# Error handlers of streams by default: Python's, and that of the C locale.
_FAILING = ("strict", "surrogateescape")


def escape_what_streams_lack() -> None:
    """Make stdout and stderr write escapes such as ``\\u82bd`` for letters that their encodings lack.

    For programs alone, since it changes the process's streams. Another error handler, as of
    ``PYTHONIOENCODING=cp1252:replace``, is kept.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _FAILING:
            stream.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a JSON document on stdout, with JSON's own escapes for letters that its encoding lacks."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not _stdout_can_express(text):
        text = json.dumps(value, indent=2)
    click.echo(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text), file=sys.stdout)


def _stdout_can_express(text: str) -> bool:
    try:
        # Halves of pairs are escaped in any case.
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "surrogatepass")
    except UnicodeError:
        return False
    return True


def print_text(text: str) -> None:
    """Print a result for people on stdout; control characters in names are escaped."""
    click.echo(printable(text), file=sys.stdout)


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


def cache_lines(caches: Sequence[tuple[Location, Manifest]]) -> list[str]:
    """One line per cache for people."""
    return [
        f"  {manifest.size_px:>4} px  {directory}  {manifest.num_samples:,} images, {format_bytes(manifest.num_bytes)} "
        f"in {len(manifest.shards)} shards{_codec_note(manifest)}"
        for directory, manifest in caches
    ]


def codec_text(manifest: Manifest) -> str:
    """How a cache stores its images, and how many times smaller than raw they are."""
    return manifest.codec if manifest.codec == RAW else f"{manifest.codec} {manifest.compression_ratio:.2f}x"


def _codec_note(manifest: Manifest) -> str:
    """Nothing of raw caches: that is what everybody expects."""
    return "" if manifest.codec == RAW else f", {codec_text(manifest)} smaller"
