"""``ldata gc``: remove what no cache needs."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import cache_root_option, json_option
from cli.output import format_bytes, print_json, print_note, print_text
from leukemia_data.building.collect import collect_garbage


@click.command("gc")
@cache_root_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def command(cache_root: Path, dry_run: bool, as_json: bool) -> None:
    """Remove shards, indexes, receipts and temporary files that no manifest below --cache names.

    Nothing else is touched, and no folder that a build is writing to. What an unfinished build has made so far is
    removed too: that build then starts from the beginning.

    \b
    Examples:
      ldata gc --dry-run
      ldata gc --cache /data/caches
    """
    report = collect_garbage(cache_root, remove=not dry_run)
    for reason in report.skipped:
        print_note(f"passed over: {reason}")
    if as_json:
        print_json(
            {
                "removed": not dry_run,
                "num_bytes": report.num_bytes,
                "files": [str(path) for item in report.garbage for path in item.files],
                "skipped": list(report.skipped),
            }
        )
        return
    num_files = sum(len(item.files) for item in report.garbage)
    for item in report.garbage:
        print_text(f"{item.directory}: {len(item.files)} files, {format_bytes(item.num_bytes)}")
    verb = "would free" if dry_run else "freed"
    print_text(f"{num_files} files, {verb} {format_bytes(report.num_bytes)}")
