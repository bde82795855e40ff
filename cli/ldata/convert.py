"""``ldata convert``: store a cache's images raw or compressed, without touching their pixels."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from cli.ldata.cache_text import cache_summary
from cli.locations import LocalPath
from cli.options import cache_argument, cache_root_option, json_option, size_filter_option
from cli.output import format_bytes, print_json, print_text
from cli.progress import progress_bar
from leukemia_data.building.repair import ConvertReport, convert_cache
from leukemia_data.caches.cache import choose_cache_dir
from leukemia_data.caches.codec import CODECS, RAW, ZSTD
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.errors import CacheError


@click.command("convert")
@cache_argument
@cache_root_option
@size_filter_option
@click.option(
    "--codec", type=click.Choice(CODECS.names()), default=ZSTD, show_default=True, help="How to store the images."
)
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder of a new cache.  [default: replace the cache's own shards]",
)
@json_option
def command(
    cache: Path | None, cache_root: Path, size_px: int | None, codec: str, out: Path | None, as_json: bool
) -> None:
    """Store a cache's images compressed without loss (zstd), or raw again.

    No image is preprocessed again: pixels are copied, each is held against its CRC, and every new shard is read back.
    From raw to zstd and back gives the same bytes. The cache is replaced as a whole at the end, and whoever reads it
    keeps what it has open; `ldata gc` then removes the old shards.

    \b
    Examples:
      ldata convert --size 224
      ldata convert cache/C-NMC_Leukemia/224-0123456789ab --codec raw
      ldata convert cache/C-NMC_Leukemia/224-0123456789ab --out /mnt/archive/224-0123456789ab
    """
    directory = choose_cache_dir(cache if cache is not None else cache_root, size_px=size_px)
    started_s = time.perf_counter()
    try:
        with progress_bar(load_manifest(directory).num_samples, "converting") as bar:
            report = convert_cache(directory, codec, out=out, num_threads=os.cpu_count() or 1, progress=bar.update)
    except KeyboardInterrupt:
        cure = "`ldata gc` removes what was written" if out is None else f"run this again, or remove {out}"
        raise CacheError(f"interrupted: {directory} is as it was, {cure}") from None
    _report(report, time.perf_counter() - started_s, as_json, is_in_place=out is None)


def _report(report: ConvertReport, seconds: float, as_json: bool, *, is_in_place: bool) -> None:
    before, after = report.before, report.after
    is_changed = after is not before
    if as_json:
        told = {
            **cache_summary(report.directory, after),
            "changed": is_changed,
            "num_bytes_before": before.num_bytes,
            "seconds": round(seconds, 3),
            "images_per_s": round(after.num_samples / seconds, 1),
        }
        print_json(told)
        return
    if not is_changed:
        print_text(f"Nothing to do: {report.directory} is {after.codec} already")
        return
    smaller = f", images {after.compression_ratio:.2f} times smaller than raw" if after.codec != RAW else ""
    print_text(
        f"{report.directory}: {after.num_samples:,} images from {before.codec} to {after.codec} in {seconds:.1f} s "
        f"({after.num_samples / seconds:,.0f} images/s), each held against its CRC"
    )
    print_text(f"{format_bytes(before.num_bytes)} -> {format_bytes(after.num_bytes)}{smaller}")
    if is_in_place:
        print_text("`ldata gc` removes the shards as they were")
