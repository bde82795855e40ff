"""Commands that keep caches sound: verify, convert, gc, push, pull."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE, print_result
from cli.options import (
    FOLDER,
    LOCATION,
    SOURCE,
    OptionValue,
    cache_location_argument,
    cache_location_option,
    chosen_cache_options,
    json_option,
    size_filter_option,
    table_options,
)
from leukemia_data.caches.codec import CODECS, RAW, ZSTD
from leukemia_data.errors import CacheError, InterruptionError, UsageError, listed
from leukemia_data.files.text import format_bytes
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.source_choice import DEFAULT_CACHE_ROOT, announce_source, choose_source
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.building.repair import ConvertReport, LostImage, RepairReport
    from leukemia_data.caches.transfer import CopyReport
    from leukemia_data.caches.verify import VerifyReport


@click.command("verify")
@cache_location_argument
@cache_location_option
@size_filter_option
@click.option(
    "--quick", "is_quick", is_flag=True, help="All but the pixels: files, sizes, manifest, index, headers and rows."
)
@click.option("--repair", "is_repair", is_flag=True, help="Rebuild what is damaged, byte for byte as it was.")
@click.option(
    "--source",
    "source",
    multiple=True,
    type=SOURCE,
    help="With --repair: the images the cache was made from, repeatable.  [default: as for `ldata build`]",
)
@table_options
@json_option
def verify(
    cache: Location | None,
    cache_root: Location,
    size_px: int | None,
    is_quick: bool,
    is_repair: bool,
    source: tuple[ImagePlace, ...],
    as_json: bool,
    **tables: OptionValue,
) -> None:
    """Check every shard against its digest and every image against its CRC.

    Names the damaged files and images and ends with exit code 1 if there are any. With --repair, exactly the damaged
    files are made again: from what is intact in them, and from the source for the rest. An image that is intact in
    neither is named, with its subject; nothing is repaired by guessing. With --quick no pixel is read: it takes
    seconds for millions of images, and finds what is missing, cut short or mixed up.

    \b
    Examples:
      ldata verify --size 224
      ldata verify --size 224 --quick
      ldata verify cache/C-NMC_Leukemia/224-0123456789ab --json
      ldata verify --size 224 --repair --source C-NMC_Leukemia
      ldata verify s3://bucket/caches --size 224
    """
    if not is_repair and (source or tables["root"] is not None):
        raise UsageError(f"{'--source' if source else '--root'} is for --repair: checking alone needs no source")
    if is_quick and is_repair:
        raise UsageError("--quick does not look at the pixels that --repair makes again: give one of them")
    location, started_s = cache or cache_root, time.perf_counter()
    if is_repair:
        # Loads OpenCV, which checking does not need.
        from leukemia_data.building.repair import repair

        find_sources = partial(_default_sources, cache_root)
        repaired = repair(location, source, find_sources=find_sources, size_px=size_px, console=CONSOLE, **tables)
        seconds = time.perf_counter() - started_s
        _print_timed(repaired, repair_lines(repaired, seconds), seconds, as_json)
        _require_repaired(repaired)
        return
    # Loads NumPy and HDF5: not for --help.
    from leukemia_data.caches.verify import verify as verify_cache

    report = verify_cache(location, quick=is_quick, size_px=size_px, console=CONSOLE)
    seconds = time.perf_counter() - started_s
    _print_timed(report, check_lines(report, seconds, is_quick=is_quick), seconds, as_json)
    if report.damages:
        raise CacheError(f"{report.directory} is damaged ({len(report.damages)} findings): {report.cure}")


def _default_sources(cache_root: Location, cache_name: str) -> Sequence[ImagePlace]:
    """Return the sources of a build without SOURCE; the generated sample is that of its own cache only."""
    choice = choose_source((), os.environ, cache_root)
    if choice.cache_name not in (None, cache_name):
        return ()
    announce_source(choice, CONSOLE)
    return choice.paths


def _print_timed(report: VerifyReport | RepairReport, lines: Iterator[str], seconds: float, as_json: bool) -> None:
    print_result({**report.to_dict(), "seconds": round(seconds, 3)}, lines, as_json=as_json)


def check_lines(report: VerifyReport, seconds: float, *, is_quick: bool = False) -> Iterator[str]:
    """Yield what a check found, for people."""
    for damage in report.damages:
        images = f": {_on_one_line(damage.record_ids)}" if damage.record_ids else ""
        yield f"{damage.file}: {damage.problem}{images}"
    if not report.damages:
        words = "there, their pixels not looked at" if is_quick else "as written"
        yield (
            f"{report.directory}: {report.num_samples:,} images in {report.num_shards} shards, "
            f"{format_bytes(report.num_bytes)}, all {words} ({seconds:.1f} s)"
        )


def repair_lines(report: RepairReport, seconds: float) -> Iterator[str]:
    """Yield what a repair did, for people."""
    if report.found.damages:
        yield from check_lines(report.found, seconds)
    for name in report.mended:
        yield f"{name}: repaired, byte for byte as it was written"
    for name in report.renewed:
        yield f"{name}: replaced by a file with the same content in other bytes"
    if report.mended or report.renewed:
        yield f"{report.num_kept:,} images were intact, {report.num_remade:,} were made from the source again"
    by_reason: dict[str, list[LostImage]] = defaultdict(list)
    for image in report.lost:
        by_reason[image.reason].append(image)
    for reason, images in by_reason.items():
        names = [f"{image.record_id} (subject {image.subject or 'unknown'})" for image in images]
        yield f"{len(images)} images lost, {reason}: {_on_one_line(names)}"
    if not report.left.damages:
        yield from check_lines(report.left, seconds)


def _require_repaired(report: RepairReport) -> None:
    if not report.left.damages:
        return
    files = listed(sorted({damage.file for damage in report.left.damages}))
    subjects = {image.subject for image in report.lost if image.subject}
    num_all, num_lost = report.left.num_samples, len(report.lost) + report.num_unnamed
    unnamed = f" ({report.num_unnamed:,} of them without a name left)" if report.num_unnamed else ""
    cure = "`ldata build` with the images it was built from makes it anew"
    if report.lost:
        cure = (
            "Give with --source the images it was built from; if they are gone, `ldata build` makes a new cache of "
            "those that there are"
        )
    raise CacheError(
        f"{report.found.directory} is damaged still ({files}). {num_lost:,} images are lost{unnamed}, of "
        f"{len(subjects)} subjects; {num_all - num_lost:,} are intact. {cure}"
    )


def _on_one_line(names: Sequence[str]) -> str:
    # A name with a line feed could look like another finding.
    return listed((name.replace("\n", "\\n") for name in names), most=20)


@click.command("convert")
@chosen_cache_options
@click.option("--codec", type=click.Choice(CODECS), default=ZSTD, help="How to store the images.")
@click.option("--out", type=FOLDER, help="Folder of a new cache.  [default: replace the cache's own shards]")
@json_option
def convert(location: Location, size_px: int | None, codec: str, out: Path | None, as_json: bool) -> None:
    """Store a cache's images compressed without loss (zstd), or raw again.

    No image is preprocessed again: pixels are copied, compared with their CRC, and every new shard is read back. From
    raw to zstd and back gives the same bytes. The cache is replaced as a whole at the end, and open readers keep the
    old one; `ldata gc` then removes the old shards.

    \b
    Examples:
      ldata convert --size 224
      ldata convert cache/C-NMC_Leukemia/224-0123456789ab --codec raw
      ldata convert cache/C-NMC_Leukemia/224-0123456789ab --out /mnt/archive/224-0123456789ab
    """
    # Loads OpenCV and HDF5: not for --help.
    from leukemia_data.building.repair import convert as convert_cache

    started_s = time.perf_counter()
    try:
        report = convert_cache(location, codec, out=out, size_px=size_px, console=CONSOLE)
    except KeyboardInterrupt:
        cure = "`ldata gc` removes what was written" if out is None else f"run this again, or remove {out}"
        raise InterruptionError(f"interrupted: {location} is as it was, {cure}") from None
    seconds = time.perf_counter() - started_s
    times = {"seconds": round(seconds, 3), "images_per_s": round(report.after.num_samples / seconds, 1)}
    lines = convert_lines(report, seconds, is_in_place=out is None)
    print_result({**report.to_dict(), **times}, lines, as_json=as_json)


def convert_lines(report: ConvertReport, seconds: float, *, is_in_place: bool) -> Iterator[str]:
    """Yield what a conversion did, for people."""
    before, after = report.before, report.after
    if not report.is_changed:
        yield f"Nothing to do: {report.directory} is {after.codec} already"
        return
    smaller = f", images {after.compression_ratio:.2f} times smaller than raw" if after.codec != RAW else ""
    yield (
        f"{report.directory}: {after.num_samples:,} images from {before.codec} to {after.codec} in {seconds:.1f} s "
        f"({after.num_samples / seconds:,.0f} images/s), each compared with its CRC"
    )
    yield f"{format_bytes(before.num_bytes)} -> {format_bytes(after.num_bytes)}{smaller}"
    if is_in_place:
        yield "`ldata gc` removes the shards as they were"


@click.command("gc")
@cache_location_option
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def gc(cache_root: Location, dry_run: bool, as_json: bool) -> None:
    """Remove shards, indexes, receipts and temporary files that no manifest below --cache names.

    Nothing else is touched, and no folder that a build is writing to. What an unfinished build has made so far is
    removed too: that build then starts from the beginning. In an object store, only what is older than a day goes.

    \b
    Examples:
      ldata gc --dry-run
      ldata gc --cache /data/caches
      ldata gc --cache s3://bucket/caches
    """
    # Loads what a job file needs: not for --help.
    from leukemia_data.building.garbage import collect_garbage

    report = collect_garbage(cache_root, remove=not dry_run)
    for reason in report.skipped:
        CONSOLE.note(f"passed over: {reason}")
    what = "would free" if dry_run else "freed"
    lines = (
        *(f"{item.location}: {len(item.files)} files, {format_bytes(item.num_bytes)}" for item in report.garbage),
        f"{report.num_files} files, {what} {format_bytes(report.num_bytes)}",
    )
    print_result(report, lines, as_json=as_json)


num_files_option = click.option("--num-files", default=4, type=click.IntRange(1, 64), help="Files copied at a time.")


@click.command("push")
@click.argument("cache", type=FOLDER)
@click.argument("url", type=LOCATION)
@size_filter_option
@click.option(
    "--verify", is_flag=True, help="Read back what is there already and what was sent, and compare it with its digest."
)
@num_files_option
@json_option
def push(cache: Path, url: Location, as_json: bool, **options: OptionValue) -> None:
    """Copy CACHE into the folder of caches at URL, as URL/NAME/SIZE-FINGERPRINT.

    CACHE is a cache, or a folder of caches of which one fits --size. Files that are there already are not sent again,
    so an interrupted copy goes on where it was, and a newer state of a cache sends what is new. The manifest comes
    last: readers see the old state or the new one. Nothing is removed; `ldata gc` does that.

    \b
    Examples:
      ldata push cache s3://lab/caches --size 224
      ldata push cache/C-NMC_Leukemia/224-0123456789ab s3://lab/caches --verify
    """
    # Loads fsspec: not for --help.
    from leukemia_data.caches import transfer

    _print_copied(transfer.push(cache, url, console=CONSOLE, **options), as_json=as_json)


@click.command("pull")
@click.argument("url", type=LOCATION)
@click.argument("directory", metavar="[DIR]", type=FOLDER, default=DEFAULT_CACHE_ROOT)
@size_filter_option
@num_files_option
@json_option
def pull(url: Location, directory: Path, as_json: bool, **options: OptionValue) -> None:
    """Copy the cache at URL into the folder of caches DIR (default: cache), as DIR/NAME/SIZE-FINGERPRINT.

    URL is a cache, or a folder of caches of which one fits --size. Every file is compared with its digest. Files that
    are here already are not fetched again, so an interrupted copy goes on where it was; the manifest comes last.

    \b
    Examples:
      ldata pull s3://lab/caches --size 224
      ldata pull s3://lab/caches/C-NMC_Leukemia/224-0123456789ab /data/caches --json
    """
    # Loads fsspec: not for --help.
    from leukemia_data.caches import transfer

    _print_copied(transfer.pull(url, directory, console=CONSOLE, **options), as_json=as_json)


def _print_copied(report: CopyReport, *, as_json: bool) -> None:
    num_kept = report.num_files - report.num_sent
    kept = f"; {num_kept:,} were there already" if num_kept else ""
    line = (
        f"{report.target}: {report.num_sent:,} of {report.num_files:,} files copied "
        f"({format_bytes(report.sent_bytes)}){kept}"
    )
    print_result(report, [line], as_json=as_json)
