"""What ``ldata push`` and ``ldata pull`` share: their options, and how they tell what was copied."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cli.output import format_bytes, print_json, print_text

if TYPE_CHECKING:
    from leukemia_data.caches.transfer import CopyReport

num_files_option = click.option(
    "--num-files", default=4, show_default=True, type=click.IntRange(1, 64), help="Files copied at a time."
)


def print_copy(report: CopyReport, source: str, target: str, *, as_json: bool) -> None:
    """Tell what a copy came to."""
    if as_json:
        print_json({"from": source, "to": target, **asdict(report)})
        return
    num_kept = report.num_files - report.num_sent
    kept = f"; {num_kept:,} were there already" if num_kept else ""
    print_text(
        f"{target}: {report.num_sent:,} of {report.num_files:,} files copied ({format_bytes(report.sent_bytes)}){kept}"
    )
