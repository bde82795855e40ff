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

from cli.console import CONSOLE, print_json, print_note, print_text
from cli.options import (
    DEFAULT_CACHE_ROOT,
    LocalPath,
    LocationType,
    SourceType,
    allow_outside_option,
    cache_location_argument,
    cache_location_option,
    json_option,
    root_option,
    size_filter_option,
)
from leukemia_data.caches.codec import CODECS, RAW, ZSTD
from leukemia_data.errors import CacheError, InterruptionError, UsageError, listed
from leukemia_data.files.text import format_bytes
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.source_choice import announce_source, choose_source
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
    type=SourceType(),
    help="With --repair: the images the cache was made from, repeatable.  [default: as for `ldata build`]",
)
@root_option
@allow_outside_option
@json_option
def verify(
    cache: Location | None,
    cache_root: Location,
    size_px: int | None,
    is_quick: bool,
    is_repair: bool,
    source: tuple[ImagePlace, ...],
    root: ImagePlace | None,
    allow_outside: bool,
    as_json: bool,
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
    if not is_repair and (source or root is not None):
        raise UsageError(f"{'--source' if source else '--root'} is for --repair: checking alone needs no source")
    if is_quick and is_repair:
        raise UsageError("--quick does not look at the pixels that --repair makes again: give one of them")
    location, started_s = cache or cache_root, time.perf_counter()
    if is_repair:
        # Loads OpenCV, which checking does not need.
        from leukemia_data.building.repair import repair

        sample_root = cache_root if isinstance(cache_root, Path) else DEFAULT_CACHE_ROOT
        repaired = repair(
            location,
            source,
            find_sources=partial(_default_sources, sample_root),
            root=root,
            allow_outside=allow_outside,
            size_px=size_px,
            console=CONSOLE,
        )
        _report_repair(repaired, time.perf_counter() - started_s, as_json)
        return
    # Loads NumPy and HDF5: not for --help.
    from leukemia_data.caches.verify import verify as verify_cache

    report = verify_cache(location, quick=is_quick, size_px=size_px, console=CONSOLE)
    _report_check(report, time.perf_counter() - started_s, is_quick, as_json)


def _default_sources(sample_root: Path, cache_name: str) -> Sequence[ImagePlace]:
    """Where a build of this cache would look for its images; the generated sample is that of its own cache only."""
    choice = choose_source((), os.environ, sample_root)
    if choice.cache_name not in (None, cache_name):
        return ()
    announce_source(choice, CONSOLE)
    return choice.paths


def _report_check(report: VerifyReport, seconds: float, is_quick: bool, as_json: bool) -> None:
    if as_json:
        print_json({**report.to_dict(), "seconds": round(seconds, 3)})
    else:
        print_text("\n".join(check_lines(report, seconds, is_quick=is_quick)))
    if report.damages:
        raise CacheError(f"{report.directory} is damaged ({len(report.damages)} findings): {report.cure}")


def check_lines(report: VerifyReport, seconds: float, *, is_quick: bool = False) -> Iterator[str]:
    """A check for people."""
    for damage in report.damages:
        images = f": {_on_one_line(damage.record_ids)}" if damage.record_ids else ""
        yield f"{damage.file}: {damage.problem}{images}"
    if not report.damages:
        words = "there, their pixels not looked at" if is_quick else "as written"
        yield (
            f"{report.directory}: {report.num_samples:,} images in {report.num_shards} shards, "
            f"{format_bytes(report.num_bytes)}, all {words} ({seconds:.1f} s)"
        )


def _report_repair(report: RepairReport, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json({**report.to_dict(), "seconds": round(seconds, 3)})
    else:
        print_text("\n".join(repair_lines(report, seconds)))
    if report.left.damages:
        files = listed(sorted({damage.file for damage in report.left.damages}))
        directory = report.found.directory
        raise CacheError(f"{directory} is damaged still ({files}). {_what_is_left(report)}. {_cure(report)}")


def repair_lines(report: RepairReport, seconds: float) -> Iterator[str]:
    """A repair for people."""
    if report.found.damages:
        yield from check_lines(report.found, seconds)
    for name in report.mended:
        yield f"{name}: repaired, byte for byte as it was written"
    for name in report.renewed:
        yield f"{name}: replaced by a file with the same content in other bytes"
    if report.mended or report.renewed:
        yield f"{report.num_kept:,} images were intact, {report.num_remade:,} were made from the source again"
    for reason, images in _by_reason(report.lost).items():
        names = [f"{image.record_id} (subject {image.subject or 'unknown'})" for image in images]
        yield f"{len(images)} images lost, {reason}: {_on_one_line(names)}"
    if not report.left.damages:
        yield from check_lines(report.left, seconds)


def _by_reason(lost: tuple[LostImage, ...]) -> dict[str, list[LostImage]]:
    groups: dict[str, list[LostImage]] = defaultdict(list)
    for image in lost:
        groups[image.reason].append(image)
    return groups


def _what_is_left(report: RepairReport) -> str:
    subjects = {image.subject for image in report.lost if image.subject}
    num_all, num_lost = report.left.num_samples, len(report.lost) + report.num_unnamed
    unnamed = f" ({report.num_unnamed:,} of them without a name left)" if report.num_unnamed else ""
    return f"{num_lost:,} images are lost{unnamed}, of {len(subjects)} subjects; {num_all - num_lost:,} are intact"


def _cure(report: RepairReport) -> str:
    if report.lost:
        return (
            "Give with --source the images it was built from; if they are gone, `ldata build` makes a new cache of "
            "those that there are"
        )
    return "`ldata build` with the images it was built from makes it anew"


def _on_one_line(names: Sequence[str]) -> str:
    # A name with a line feed could look like another finding.
    return listed((name.replace("\n", "\\n") for name in names), most=20)


@click.command("convert")
@cache_location_argument
@cache_location_option
@size_filter_option
@click.option("--codec", type=click.Choice(CODECS), default=ZSTD, show_default=True, help="How to store the images.")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder of a new cache.  [default: replace the cache's own shards]",
)
@json_option
def convert(
    cache: Location | None, cache_root: Location, size_px: int | None, codec: str, out: Path | None, as_json: bool
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
    # Loads OpenCV and HDF5: not for --help.
    from leukemia_data.building.repair import convert as convert_cache

    location, started_s = cache or cache_root, time.perf_counter()
    try:
        report = convert_cache(location, codec, out=out, size_px=size_px, console=CONSOLE)
    except KeyboardInterrupt:
        cure = "`ldata gc` removes what was written" if out is None else f"run this again, or remove {out}"
        raise InterruptionError(f"interrupted: {location} is as it was, {cure}") from None
    seconds = time.perf_counter() - started_s
    if as_json:
        rate = round(report.after.num_samples / seconds, 1)
        print_json({**report.to_dict(), "seconds": round(seconds, 3), "images_per_s": rate})
    else:
        print_text("\n".join(convert_lines(report, seconds, is_in_place=out is None)))


def convert_lines(report: ConvertReport, seconds: float, *, is_in_place: bool) -> Iterator[str]:
    """A conversion for people."""
    before, after = report.before, report.after
    if not report.is_changed:
        yield f"Nothing to do: {report.directory} is {after.codec} already"
        return
    smaller = f", images {after.compression_ratio:.2f} times smaller than raw" if after.codec != RAW else ""
    yield (
        f"{report.directory}: {after.num_samples:,} images from {before.codec} to {after.codec} in {seconds:.1f} s "
        f"({after.num_samples / seconds:,.0f} images/s), each held against its CRC"
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
        print_note(f"passed over: {reason}")
    if as_json:
        print_json(report.to_dict())
        return
    for item in report.garbage:
        print_text(f"{item.location}: {len(item.files)} files, {format_bytes(item.num_bytes)}")
    print_text(f"{report.num_files} files, {'would free' if dry_run else 'freed'} {format_bytes(report.num_bytes)}")


num_files_option = click.option(
    "--num-files", default=4, show_default=True, type=click.IntRange(1, 64), help="Files copied at a time."
)


@click.command("push")
@click.argument("cache", type=LocalPath(path_type=Path, file_okay=False))
@click.argument("url", type=LocationType())
@size_filter_option
@click.option(
    "--verify",
    "is_verify",
    is_flag=True,
    help="Read back what is there already and what was sent, and hold it against its digest.",
)
@num_files_option
@json_option
def push(cache: Path, url: Location, size_px: int | None, is_verify: bool, num_files: int, as_json: bool) -> None:
    """Copy CACHE into the folder of caches at URL, as URL/NAME/SIZE-FINGERPRINT.

    CACHE is a cache, or a folder of caches of which one fits --size. Files that are there already are not sent again,
    so an interrupted copy goes on where it was, and a newer state of a cache sends what is new. The manifest comes
    last: whoever reads sees the old state or the new one. Nothing is removed; `ldata gc` does that.

    \b
    Examples:
      ldata push cache s3://lab/caches --size 224
      ldata push cache/C-NMC_Leukemia/224-0123456789ab s3://lab/caches --verify
    """
    # Loads fsspec: not for --help.
    from leukemia_data.caches import transfer

    _print(
        transfer.push(cache, url, size_px=size_px, verify=is_verify, num_files=num_files, console=CONSOLE),
        as_json=as_json,
    )


@click.command("pull")
@click.argument("url", type=LocationType())
@click.argument(
    "directory", metavar="[DIR]", type=LocalPath(path_type=Path, file_okay=False), default=DEFAULT_CACHE_ROOT
)
@size_filter_option
@num_files_option
@json_option
def pull(url: Location, directory: Path, size_px: int | None, num_files: int, as_json: bool) -> None:
    """Copy the cache at URL into the folder of caches DIR (default: cache), as DIR/NAME/SIZE-FINGERPRINT.

    URL is a cache, or a folder of caches of which one fits --size. Every file is held against its digest. Files that
    are here already are not fetched again, so an interrupted copy goes on where it was; the manifest comes last.

    \b
    Examples:
      ldata pull s3://lab/caches --size 224
      ldata pull s3://lab/caches/C-NMC_Leukemia/224-0123456789ab /data/caches --json
    """
    # Loads fsspec: not for --help.
    from leukemia_data.caches import transfer

    _print(transfer.pull(url, directory, size_px=size_px, num_files=num_files, console=CONSOLE), as_json=as_json)


def _print(report: CopyReport, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    num_kept = report.num_files - report.num_sent
    kept = f"; {num_kept:,} were there already" if num_kept else ""
    print_text(
        f"{report.target}: {report.num_sent:,} of {report.num_files:,} files copied "
        f"({format_bytes(report.sent_bytes)}){kept}"
    )
