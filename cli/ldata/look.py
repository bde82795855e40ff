"""Commands that look at caches, recipes and this machine's speed; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.console import CONSOLE, codec_text, format_table, print_result
from cli.options import (
    SEED,
    OptionValue,
    augment_option,
    cache_location_option,
    chosen_cache_options,
    complete_recipe,
    json_option,
    local_copies_option,
    local_copies_options,
    model_option,
)
from leukemia_data.caches.codec import RAW
from leukemia_data.caches.opening import LocalCopiesChoice, list_caches, open_chosen_cache
from leukemia_data.files.text import format_bytes
from leukemia_data.operations.recipe import Recipe, load_recipe, preset_names
from leukemia_data.sources.reading import Reading
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.caches.statistics import ChannelStatistics
    from leukemia_data.caches.summary import CacheStatistics
    from leukemia_models.experiments.stream_bench import StreamBench


_MAX_LISTED = 20


@click.command("info")
@chosen_cache_options
@local_copies_option
@json_option
def info(location: Location, size_px: int | None, copies_dir: Path | None, as_json: bool) -> None:
    """Show a cache's images, classes, subjects, recipe, files, quarantined images and makers.

    \b
    Examples:
      ldata info --size 224
      ldata info cache/C-NMC_Leukemia/224-0123456789ab --json
    """
    # Loads NumPy and HDF5: not for --help.
    from leukemia_data.caches.summary import describe_cache

    described = describe_cache(open_chosen_cache(location, LocalCopiesChoice(copies_dir), size_px=size_px))
    print_result(described, info_lines(described), as_json=as_json)


def info_lines(described: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a cache holds, a label and a text a line."""
    versions = described["library_versions"]
    rows = [
        ("cache", described["directory"]),
        ("fingerprint", described["fingerprint"]),
        (
            "images",
            f"{described['num_samples']:,} of {described['size_px']} px: {_joined(described['images_per_class'])}",
        ),
        ("subjects", f"{described['num_subjects']:,}"),
        ("given splits", _joined(described["given_splits"])),
        ("given folds", _joined(described["given_folds"]) or "none"),
        ("files", f"{described['num_shards']} shards{_capacity(described)}, {format_bytes(described['num_bytes'])}"),
        ("codec", _codec(described)),
        ("made with", ", ".join(f"{name} {release}" for name, release in versions.items())),
        ("recipe", described["recipe"]["name"]),
        *(("", f"{number}. {format_step(step)}") for number, step in enumerate(described["recipe"]["steps"], 1)),
        *_reading_rows(described["reading"]),
        *_quarantine_rows(described["quarantined"]),
    ]
    for label, text in rows:
        yield f"{label:<13}{text}"


def _reading_rows(values: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if values is None:
        yield "reading", "not recorded: the cache is of version 0.1; the next build records it"
        return
    reading = Reading.from_dict(values)
    options = reading.options.command_text
    for number, line in enumerate([*reading.lines(), *([f"options: {options}"] if options else [])]):
        yield "" if number else "reading", line


def _quarantine_rows(images: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    yield "quarantined", f"{len(images):,}"
    for image in images[:_MAX_LISTED]:
        yield "", f"{image['record_id']}: {image['reason']}"
    if len(images) > _MAX_LISTED:
        yield "", f"and {len(images) - _MAX_LISTED} more (--json lists all)"


def _joined(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _codec(described: Mapping[str, Any]) -> str:
    codec, ratio = described["codec"], described["compression_ratio"]
    return RAW if codec == RAW else f"{codec}, images {ratio:.2f} times smaller than raw"


def _capacity(described: Mapping[str, Any]) -> str:
    capacity = described["shard_capacity"]
    return "" if capacity is None else f" of up to {capacity:,} images (--shard-size)"


@click.command("list")
@cache_location_option
@json_option
def list_(cache_root: Location, as_json: bool) -> None:
    """List the caches below --cache.

    \b
    Examples:
      ldata list
      ldata list --cache /data/caches --json
      ldata list --cache s3://bucket/caches
    """
    found = list_caches(cache_root, console=CONSOLE)
    rows = [
        [
            cache.manifest.name,
            str(cache.manifest.size_px),
            cache.manifest.recipe.name,
            f"{cache.manifest.num_samples:,}",
            str(len(cache.manifest.quarantined)),
            format_bytes(cache.manifest.num_bytes),
            codec_text(cache.manifest),
            str(cache.location),
        ]
        for cache in found
    ]
    header = ["name", "px", "recipe", "images", "quarantined", "size", "codec", "directory"]
    text = format_table(header, rows) if found else f"no caches in {cache_root}; make one with `ldata build`"
    print_result([cache.to_dict() for cache in found], [text], as_json=as_json)


@click.command("recipes")
@click.argument("name", required=False, shell_complete=complete_recipe)
@json_option
def recipes(name: str | None, as_json: bool) -> None:
    """List the shipped preprocessing recipes, or show the preset or .toml file NAME.

    A recipe file holds [[step]] tables: the first makes a square of any frame, the last leads to the cache's size.

    \b
    Examples:
      ldata recipes
      ldata recipes report-a
      ldata recipes my-recipe.toml     # checks it, too
    """
    shown = [load_recipe(each) for each in ([name] if name is not None else preset_names())]
    text = "\n\n".join(map(_recipe_text, shown))
    print_result([recipe.to_dict() for recipe in shown], [text], as_json=as_json)


def _recipe_text(recipe: Recipe) -> str:
    steps = [f"  {number}. {format_step(step)}" for number, step in enumerate(recipe.to_dict()["steps"], 1)]
    return "\n".join([f"{recipe.name}: {recipe.description}", *steps])


def format_step(step: Mapping[str, Any]) -> str:
    """Return a recipe's step on one line, such as ``clahe clip_limit=3.0 tiles=9``."""
    parameters = " ".join(
        f"{key}={value}" for key, value in step.items() if key not in ("op", "version") and value is not None
    )
    return f"{step['op']} {parameters}".rstrip()


@click.command("stats")
@chosen_cache_options
@local_copies_option
@click.option(
    "--split",
    help="subject (the default), given, image, fold:K/N, test-fold:K/N, official:K or leave-out:SUBJECT,...: also the "
    "numbers of its training part; all: no split.",
)
@click.option("--split-seed", "seed", default=0, type=SEED, help="Seed of the split, as --split-seed of ltrain.")
@click.option(
    "--report-estimator", "with_report", is_flag=True, help="Also print the first report's (wrong) way to mean and std."
)
@click.option("--batch-size", default=64, type=click.IntRange(1), help="For --report-estimator.")
@json_option
def stats(
    location: Location,
    size_px: int | None,
    copies_dir: Path | None,
    split: str | None,
    seed: int,
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
    # Loads NumPy, OpenCV and HDF5: not for --help.
    from leukemia_data.caches.summary import cache_statistics, estimate_as_report

    opened = open_chosen_cache(location, LocalCopiesChoice(copies_dir), size_px=size_px)
    found = cache_statistics(opened, split, seed, console=CONSOLE)
    estimate = estimate_as_report(opened, split, seed, batch_size) if with_report else None
    report = {} if estimate is None else {"report_estimator": _estimate_values(found, estimate, batch_size)}
    print_result({**found.to_dict(), **report}, stats_lines(found, estimate, batch_size), as_json=as_json)


def _estimate_values(found: CacheStatistics, estimate: ChannelStatistics, batch_size: int) -> dict[str, Any]:
    values = {"mean": estimate.mean, "std": estimate.std, "num_images": estimate.num_images}
    return {"part": found.part, "batch_size": batch_size, **values}


def stats_lines(found: CacheStatistics, estimate: ChannelStatistics | None, batch_size: int) -> Iterator[str]:
    """Yield the counts, the means and standard deviations, and how to normalise by them."""
    yield f"{found.cache}  ({found.recipe}, {found.size_px} px)\n"
    classes = [name for name, count in found.counts["all"].images_per_class.items() if count]
    rows = [
        [part, f"{counts.images:,}", f"{counts.subjects:,}"]
        + [f"{counts.images_per_class[name]:,} ({counts.subjects_per_class[name]:,})" for name in classes]
        for part, counts in found.counts.items()
    ]
    yield format_table(["", "images", "subjects", *(f"{name} (subjects)" for name in classes)], rows)
    if found.split is not None:
        yield f"split {found.split.name}, seed {found.split.seed}: {found.split.stamp}"
        if found.split.note:
            CONSOLE.note(f"note: {found.split.note}")
    part, best = found.part, found.statistics[found.part]
    rows = [row for name, statistics in found.statistics.items() for row in _statistics_rows(name, statistics)]
    if estimate is not None:
        rows += _statistics_rows(f"first report's estimator on {part}, batches of {batch_size} (WRONG)", estimate)
    yield "\n" + format_table(["in [0, 1]", "R", "G", "B"], rows)
    mean, std = (", ".join(f"{value:.5f}" for value in values) for values in (best.mean, best.std))
    yield f"\ntransforms.Normalize(mean=[{mean}], std=[{std}])  # {part}"
    if estimate is not None:
        yield (
            "The first report adds one mean and std per batch and divides by the number of images: "
            f"{best.mean[0] / estimate.mean[0]:.2f} times too small, and different for every batch size."
        )


def _statistics_rows(label: str, statistics: ChannelStatistics) -> list[list[str]]:
    return [
        [f"{label} {what}", *(f"{value:.5f}" for value in values)]
        for what, values in (("mean", statistics.mean), ("std", statistics.std))
    ]


@click.command("bench")
@chosen_cache_options
@local_copies_options
@augment_option
@model_option
@click.option("--batch-size", default=64, type=click.IntRange(2))
@click.option("--num-threads", type=click.IntRange(1), help="Threads of the stream.  [default: one a core, at most 4]")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--seconds", default=3.0, type=click.FloatRange(0.1, 3600), help="Time for each measurement.")
@json_option
def bench(location: Location, augment: str, model: str, as_json: bool, **options: OptionValue) -> None:
    """Measure images per second of a cache's stream, of the augmentation and of training, and what an epoch waits.

    The ceiling is what the same threads reach when they only copy memory.

    \b
    Examples:
      ldata bench --size 224
      ldata bench cache/C-NMC_Leukemia/128-abeec0bcfa84 --augment report-a --model resnet50 --json
      ldata bench s3://lab/caches --size 128
    """
    # torch takes seconds to load: not for --help.
    from leukemia_data.augmenting.augmentation import load_augmentation
    from leukemia_models.experiments.stream_bench import measure_stream

    result = measure_stream(location, load_augmentation(augment), model_name=model, **options)
    print_result(result, bench_lines(result), as_json=as_json)


def bench_lines(result: StreamBench) -> Iterator[str]:
    """Yield what was measured, for people."""
    ceiling, stream = result.ceiling_images_per_s, result.stream_images_per_s
    threads = f"{result.num_threads} threads"
    rows = [
        [f"memory copies, {threads}", f"{ceiling:,.0f}", "the ceiling"],
        [f"stream of uint8 batches, {threads}", f"{stream:,.0f}", f"{stream / ceiling:.2f} of it"],
        [f"augmentation {result.augmentation}", f"{result.augment_images_per_s:,.0f}", ""],
        *(
            [f"training {result.model_name}, {name}", f"{rate:,.0f}", "the default here" * (name == result.precision)]
            for name, rate in result.images_per_s_by_precision.items()
        ),
    ]
    yield (
        f"{result.cache}: {result.num_samples:,} images of {result.size_px} px, batches of {result.batch_size}, "
        f"on {result.device}; {result.residency}\n"
    )
    yield format_table(["", "images/s", ""], rows)
    yield f"\nFirst batch {result.first_batch_s:.2f} s after opening the cache."
    yield (
        f"An epoch of {result.num_samples:,} images takes {result.epoch_s:,.1f} s in {result.precision}, of which it "
        f"waits {result.epoch_wait_s:.2f} s for data ({100 * result.epoch_wait_s / result.epoch_s:.2f} %)."
    )
    yield f"The stream could feed {stream / result.train_images_per_s:,.0f} times as fast a network."
    if result.traffic:
        yield f"From the URL: {result.traffic}."
