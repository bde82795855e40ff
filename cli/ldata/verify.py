"""``ldata verify``: every byte of a cache."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import click

from cli.options import cache_argument, cache_root_option, json_option, size_filter_option
from cli.output import format_bytes, print_json
from cli.progress import progress_bar
from leukemia_data.caches.cache import choose_cache_dir
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.verify import VerifyReport, verify_cache
from leukemia_data.errors import CacheError, listed


@click.command("verify")
@cache_argument
@cache_root_option
@size_filter_option
@json_option
def command(cache: Path | None, cache_root: Path, size_px: int | None, as_json: bool) -> None:
    """Check every shard against its digest and every image against its CRC.

    Names the damaged files and images and ends with exit code 1 if there are any.

    \b
    Examples:
      ldata verify --size 224
      ldata verify cache/C-NMC_Leukemia/224-0123456789ab --json
    """
    directory = choose_cache_dir(cache if cache is not None else cache_root, size_px=size_px)
    started_s = time.perf_counter()
    with progress_bar(load_manifest(directory).num_samples, "verifying") as bar:
        report = verify_cache(directory, num_threads=os.cpu_count() or 1, progress=bar.update)
    seconds = time.perf_counter() - started_s
    if as_json:
        print_json({**asdict(report), "directory": str(directory), "seconds": round(seconds, 3)})
    else:
        _print(report, seconds)
    if report.damages:
        raise CacheError(
            f"{directory} is damaged ({len(report.damages)} findings): remove the files named above and build again"
        )


def _print(report: VerifyReport, seconds: float) -> None:
    for damage in report.damages:
        images = f": {listed(damage.record_ids)}" if damage.record_ids else ""
        click.echo(f"{damage.file}: {damage.problem}{images}")
    if not report.damages:
        click.echo(
            f"{report.directory}: {report.num_samples:,} images in {report.num_shards} shards, "
            f"{format_bytes(report.num_bytes)}, all as written ({seconds:.1f} s)"
        )
