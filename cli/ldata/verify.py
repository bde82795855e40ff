"""``ldata verify``: every byte of a cache, and its repair."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.locations import SourceType
from cli.options import (
    DEFAULT_CACHE_ROOT,
    allow_outside_option,
    cache_location_argument,
    cache_location_option,
    json_option,
    root_option,
    size_filter_option,
)
from cli.output import format_bytes, print_json, print_text
from cli.progress import progress_bar
from leukemia_data.caches.cache import choose_cache_dir
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.caches.verify import VerifyReport, check_quickly, verify_cache
from leukemia_data.errors import CacheError, UsageError, listed
from leukemia_data.records.record import ImagePlace
from leukemia_data.stores.url import Location, Url

if TYPE_CHECKING:
    from leukemia_data.building.repair import LostImage, RepairReport


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
def command(
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
        raise UsageError("--quick does not look at the pixels that --repair mends: give one of them")
    chosen = cache if cache is not None else cache_root
    started_s = time.perf_counter()
    if not isinstance(chosen, Path):
        if is_quick:
            raise UsageError(f"{chosen}: --quick is for folders; in a store every shard is fetched and checked whole")
        if is_repair:
            raise UsageError(
                f"{chosen}: --repair mends folders; remove what is damaged and build again, which makes it anew"
            )
        _verify_stored(chosen, size_px, started_s, as_json)
        return
    directory = choose_cache_dir(chosen, size_px=size_px)
    if is_repair:
        # Loads OpenCV, which checking does not need.
        from cli.ldata.repair_work import RepairSource, repair

        sample_root = cache_root if isinstance(cache_root, Path) else DEFAULT_CACHE_ROOT
        choice = RepairSource(sample_root, source, root, allow_outside)
        _report_repair(repair(directory, choice), started_s, as_json)
        return
    with progress_bar(load_manifest(directory).num_samples, "verifying") as bar:
        check = check_quickly if is_quick else verify_cache
        report = check(directory, num_threads=os.cpu_count() or 1, progress=bar.update)
    cure = f"mend it with `ldata verify {directory} --repair --source SOURCE`, where SOURCE is what it was built from"
    _report(report, cure, started_s, is_quick, as_json)


def _verify_stored(url: Url, size_px: int | None, started_s: float, as_json: bool) -> None:
    # Load fsspec, for which a folder has no use.
    from leukemia_data.caches.remote_cache import choose_location, read_manifest, verify_stored_cache
    from leukemia_data.stores.object_store import open_store

    store = open_store(str(choose_location(url, size_px=size_px)))
    with progress_bar(read_manifest(store).num_samples, "verifying") as bar:
        report = verify_stored_cache(store, num_threads=os.cpu_count() or 1, progress=bar.update)
    cure = "remove the objects that are damaged and build it again, which makes them anew"
    _report(report, cure, started_s, False, as_json)


def _report(report: VerifyReport, cure: str, started_s: float, is_quick: bool, as_json: bool) -> None:
    seconds = time.perf_counter() - started_s
    if as_json:
        print_json({**asdict(report), "directory": str(report.directory), "seconds": round(seconds, 3)})
    else:
        _print(report, seconds, "there, their pixels not looked at" if is_quick else "as written")
    if report.damages:
        raise CacheError(f"{report.directory} is damaged ({len(report.damages)} findings): {cure}")


def _print(report: VerifyReport, seconds: float, words: str = "as written") -> None:
    for damage in report.damages:
        images = f": {_on_one_line(damage.record_ids)}" if damage.record_ids else ""
        print_text(f"{damage.file}: {damage.problem}{images}")
    if not report.damages:
        print_text(
            f"{report.directory}: {report.num_samples:,} images in {report.num_shards} shards, "
            f"{format_bytes(report.num_bytes)}, all {words} ({seconds:.1f} s)"
        )


def _report_repair(report: RepairReport, started_s: float, as_json: bool) -> None:
    seconds = time.perf_counter() - started_s
    directory = report.found.directory
    if as_json:
        told = {**asdict(report), "directory": str(directory), "seconds": round(seconds, 3)}
        for name in ("found", "left"):
            told[name] = {**told[name], "directory": str(directory)}
        print_json(told)
    else:
        _print_repair(report, seconds)
    if report.left.damages:
        files = listed(sorted({damage.file for damage in report.left.damages}))
        raise CacheError(f"{directory} is damaged still ({files}). {_what_is_left(report)}. {_cure(report)}")


def _print_repair(report: RepairReport, seconds: float) -> None:
    if report.found.damages:
        _print(report.found, seconds)
    for name in report.mended:
        print_text(f"{name}: mended, byte for byte as it was written")
    for name in report.renewed:
        print_text(f"{name}: replaced by a file with the same content in other bytes")
    if report.mended or report.renewed:
        print_text(f"{report.num_kept:,} images were intact, {report.num_remade:,} were made from the source again")
    for reason, images in _by_reason(report.lost).items():
        names = [f"{image.record_id} (subject {image.subject or 'unknown'})" for image in images]
        print_text(f"{len(images)} images lost, {reason}: {_on_one_line(names)}")
    if not report.left.damages:
        _print(report.left, seconds)


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
