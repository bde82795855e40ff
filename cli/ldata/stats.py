"""``ldata stats``: what to normalise with, and what is in the cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from cli.options import cache_location_argument, cache_location_option, json_option, seed_type, size_filter_option
from cli.output import format_table, print_json, print_note, print_text
from cli.stage_options import stage_dir_option
from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache
from leukemia_data.caches.opening import LocalCopiesChoice, open_chosen_cache
from leukemia_data.caches.statistics import ChannelStatistics, channel_statistics, report_estimator
from leukemia_data.errors import UsageError
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.splitting.leaks import check_leaks
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitCodes, parse_split
from leukemia_data.splitting.splits import assign_split, split_indices
from leukemia_data.stores.url import Location

_DEFAULT_SPLIT = "subject"


@click.command("stats")
@cache_location_argument
@cache_location_option
@size_filter_option
@stage_dir_option
@click.option(
    "--split",
    "split_name",
    help="subject (the default), given, image, fold:K/N, test-fold:K/N, official:K or leave-out:SUBJECT,...: also the "
    "numbers of its training part; all: no split.",
)
@click.option(
    "--split-seed", default=0, show_default=True, type=seed_type, help="Seed of the split, as --split-seed of ltrain."
)
@click.option(
    "--report-estimator", "with_report", is_flag=True, help="Also print the first report's (wrong) way to mean and std."
)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1), help="For --report-estimator.")
@json_option
def command(
    cache: Location | None,
    cache_root: Location,
    size_px: int | None,
    stage_dir: Path | None,
    split_name: str | None,
    split_seed: int,
    with_report: bool,
    batch_size: int,
    as_json: bool,
) -> None:
    """Print the exact mean and standard deviation per channel, and the counts of images, classes and subjects.

    They come from sums stored with each image, so no pixel is read. Normalise with the numbers of the training part:
    images that validate or test may not count.

    \b
    Examples:
      ldata stats
      ldata stats cache/C-NMC_Leukemia/224-0123456789ab --split fold:1/5
      ldata stats --size 224 --report-estimator --batch-size 64
      ldata stats --split all --json
    """
    opened = open_chosen_cache(
        cache if cache is not None else cache_root, LocalCopiesChoice(stage_dir), size_px=size_px
    )
    codes = _assign(opened, split_name, split_seed)
    parts = {"all": np.arange(len(opened), dtype=np.int64)}
    if codes is not None:
        parts |= {name: split_indices(codes, name) for name in SPLIT_NAMES}
    result: dict[str, Any] = {
        "cache": str(opened.location),
        "size_px": opened.size_px,
        "recipe": opened.manifest.recipe.name,
        "classes": list(opened.manifest.classes),
        "split": None if codes is None else {"name": split_name or _DEFAULT_SPLIT, "seed": split_seed},
        "counts": {name: _counts(opened, numbers) for name, numbers in parts.items() if name == "all" or len(numbers)},
        "statistics": {name: _statistics(opened, parts[name]) for name in ("all", "train") if name in parts},
    }
    if codes is not None:
        result["split"]["stamp"] = check_leaks(codes, opened.table, opened.manifest.subjects).stamp
        result["split"]["note"] = "" if opened.manifest.has_looks else WITHOUT_LOOKS
    if with_report:
        part = "train" if codes is not None else "all"
        result["report_estimator"] = {
            "part": part,
            "batch_size": batch_size,
            **_as_dict(_estimate(opened, parts[part], batch_size)),
        }
    if as_json:
        print_json(result)
    else:
        _print(result, with_report)


def _assign(cache: Cache, split_name: str | None, seed: int) -> SplitCodes | None:
    """The split asked for; by default the subject split, or none where the cache does not allow one."""
    if split_name == "all":
        return None
    try:
        spec = parse_split(split_name or _DEFAULT_SPLIT)
        return assign_split(spec, cache.table, seed, cache.manifest.classes, cache.manifest.subjects)
    except UsageError as error:
        if split_name is not None:
            raise
        print_note(f"note: numbers of the whole cache only, because no split was named and {error}")
        return None


def _counts(cache: Cache, numbers: NDArray[np.int64]) -> dict[str, Any]:
    labels, subjects = cache.table.labels[numbers], cache.table.subjects[numbers]
    names = [*enumerate(cache.manifest.classes), (UNKNOWN_LABEL, "unlabelled")]
    images = {name: int((labels == label).sum()) for label, name in names}
    people = {name: _num_named(subjects[labels == label]) for label, name in names}
    return {
        "images": len(numbers),
        "subjects": _num_named(subjects),
        "images_per_class": images,
        "subjects_per_class": people,
    }


def _num_named(subjects: NDArray[np.bytes_]) -> int:
    return len({subject for subject in subjects.tolist() if subject})


def _statistics(cache: Cache, numbers: NDArray[np.int64]) -> dict[str, Any]:
    table = cache.table
    return _as_dict(
        channel_statistics(table.channel_sums[numbers], table.channel_square_sums[numbers], cache.pixels_per_image)
    )


def _estimate(cache: Cache, numbers: NDArray[np.int64], batch_size: int) -> ChannelStatistics | None:
    table = cache.table
    sums, square_sums = table.channel_sums[numbers], table.channel_square_sums[numbers]
    return report_estimator(sums, square_sums, cache.pixels_per_image, batch_size)


def _as_dict(statistics: ChannelStatistics | None) -> dict[str, Any]:
    if statistics is None:
        raise UsageError("there is no image in this part of the split")
    return asdict(statistics)


def _print(result: dict[str, Any], with_report: bool) -> None:
    print_text(f"{result['cache']}  ({result['recipe']}, {result['size_px']} px)\n")
    classes = [name for name in (*result["classes"], "unlabelled") if result["counts"]["all"]["images_per_class"][name]]
    rows = [
        [part, f"{counts['images']:,}", f"{counts['subjects']:,}"]
        + [f"{counts['images_per_class'][name]:,} ({counts['subjects_per_class'][name]:,})" for name in classes]
        for part, counts in result["counts"].items()
    ]
    print_text(format_table(["", "images", "subjects", *(f"{name} (subjects)" for name in classes)], rows))
    if result["split"] is not None:
        split = result["split"]
        print_text(f"split {split['name']}, seed {split['seed']}: {split['stamp']}")
        if split["note"]:
            print_note(f"note: {split['note']}")
    rows = []
    for part, statistics in result["statistics"].items():
        rows.append([f"{part} mean", *(f"{value:.5f}" for value in statistics["mean"])])
        rows.append([f"{part} std", *(f"{value:.5f}" for value in statistics["std"])])
    if with_report:
        report = result["report_estimator"]
        label = f"first report's estimator on {report['part']}, batches of {report['batch_size']} (WRONG)"
        rows.append([f"{label} mean", *(f"{value:.5f}" for value in report["mean"])])
        rows.append([f"{label} std", *(f"{value:.5f}" for value in report["std"])])
    print_text("\n" + format_table(["in [0, 1]", "R", "G", "B"], rows))
    best = "train" if "train" in result["statistics"] else "all"
    mean, std = (", ".join(f"{v:.5f}" for v in result["statistics"][best][key]) for key in ("mean", "std"))
    print_text(f"\ntransforms.Normalize(mean=[{mean}], std=[{std}])  # {best}")
    if with_report:
        ratio = result["statistics"][best]["mean"][0] / result["report_estimator"]["mean"][0]
        print_text(
            f"The first report adds one mean and std per batch and divides by the number of images: {ratio:.2f} times "
            "too small, and different for every batch size."
        )
