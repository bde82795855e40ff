"""``ldata gc``: remove what no cache needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from cli.options import cache_location_option, json_option
from cli.output import format_bytes, print_json, print_note, print_text
from leukemia_data.building.collect import collect_garbage
from leukemia_data.stores.url import Location, Url


@click.command("gc")
@cache_location_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def command(cache_root: Location, dry_run: bool, as_json: bool) -> None:
    """Remove shards, indexes, receipts and temporary files that no manifest below --cache names.

    Nothing else is touched, and no folder that a build is writing to. What an unfinished build has made so far is
    removed too: that build then starts from the beginning. In an object store, only what is older than a day goes.

    \b
    Examples:
      ldata gc --dry-run
      ldata gc --cache /data/caches
      ldata gc --cache s3://bucket/caches
    """
    if not isinstance(cache_root, Path):
        _collect_stored(cache_root, dry_run=dry_run, as_json=as_json)
        return
    report = collect_garbage(cache_root, remove=not dry_run)
    for reason in report.skipped:
        print_note(f"passed over: {reason}")
    found = [(str(item.directory), [str(path) for path in item.files], item.num_bytes) for item in report.garbage]
    _report(found, report.skipped, dry_run=dry_run, as_json=as_json)


def _collect_stored(url: Url, *, dry_run: bool, as_json: bool) -> None:
    # Load fsspec, for which a folder has no use.
    from leukemia_data.building.collect import collect_stored_garbage
    from leukemia_data.stores.object_store import open_store

    found = collect_stored_garbage(open_store(url), remove=not dry_run, now_ns=time.time_ns())
    for reason in found.skipped:
        print_note(f"passed over: {reason}")
    caches = [(str(item.url), [str(item.url / name) for name in item.names], item.num_bytes) for item in found.garbage]
    _report(caches, found.skipped, dry_run=dry_run, as_json=as_json)


def _report(
    found: Sequence[tuple[str, Sequence[str], int]], skipped: Sequence[str], *, dry_run: bool, as_json: bool
) -> None:
    """Print folders with their files and bytes."""
    total_bytes = sum(num_bytes for _, _, num_bytes in found)
    if as_json:
        print_json(
            {
                "removed": not dry_run,
                "num_bytes": total_bytes,
                "files": [file for _, files, _ in found for file in files],
                "skipped": list(skipped),
            }
        )
        return
    for folder, files, num_bytes in found:
        print_text(f"{folder}: {len(files)} files, {format_bytes(num_bytes)}")
    verb = "would free" if dry_run else "freed"
    print_text(f"{sum(len(files) for _, files, _ in found)} files, {verb} {format_bytes(total_bytes)}")
