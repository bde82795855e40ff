"""``ldata info``: what a cache holds and how it was made."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.options import cache_location_argument, cache_location_option, json_option, size_filter_option
from cli.output import format_bytes, print_json, print_text
from cli.stage_options import stage_dir_option
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.codec import RAW
from leukemia_data.caches.opening import LocalCopiesChoice, open_chosen_cache
from leukemia_data.records.record import NO_FOLD, UNKNOWN_LABEL
from leukemia_data.sources.reading import Reading
from leukemia_data.stores.url import Location

_MAX_LISTED = 20


@click.command("info")
@cache_location_argument
@cache_location_option
@size_filter_option
@stage_dir_option
@json_option
def command(
    cache: Location | None, cache_root: Location, size_px: int | None, stage_dir: Path | None, as_json: bool
) -> None:
    """Show a cache's images, classes, subjects, recipe, files, quarantined images and makers.

    \b
    Examples:
      ldata info --size 224
      ldata info cache/C-NMC_Leukemia/224-0123456789ab --json
    """
    opened = open_chosen_cache(
        cache if cache is not None else cache_root, LocalCopiesChoice(stage_dir), size_px=size_px
    )
    described = describe_cache(opened)
    if as_json:
        print_json(described)
    else:
        _print(described)


def describe_cache(cache: Cache) -> dict[str, Any]:
    """Everything ``info`` tells, as JSON values."""
    manifest, table = cache.manifest, cache.table
    names = {UNKNOWN_LABEL: "unlabelled", **dict(enumerate(manifest.classes))}
    splits = {
        text.decode("utf-8", "surrogateescape") or "none": count
        for text, count in Counter(table.splits.tolist()).items()
    }
    folds = Counter(table.folds[table.folds != NO_FOLD].tolist())
    return {
        "directory": str(cache.location),
        "name": manifest.name,
        "size_px": manifest.size_px,
        "fingerprint": manifest.fingerprint,
        "num_samples": len(cache),
        "num_subjects": len({subject for subject in table.subjects.tolist() if subject}),
        "images_per_class": {names[label]: count for label, count in sorted(Counter(table.labels.tolist()).items())},
        "given_splits": splits,
        "given_folds": {str(fold): folds[fold] for fold in sorted(folds)},
        "num_bytes": manifest.num_bytes,
        "num_shards": len(manifest.shards),
        "shard_capacity": manifest.shard_capacity,
        "codec": manifest.codec,
        "compression_ratio": round(manifest.compression_ratio, 3),
        "recipe": manifest.recipe.to_dict(),
        "reading": None if manifest.reading is None else dict(manifest.reading),
        "quarantined": [asdict(image) for image in manifest.quarantined],
        "library_versions": dict(manifest.library_versions),
    }


def _codec_text(described: dict[str, Any]) -> str:
    codec, ratio = described["codec"], described["compression_ratio"]
    return RAW if codec == RAW else f"{codec}, images {ratio:.2f} times smaller than raw"


def _print(described: dict[str, Any]) -> None:
    def joined(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())

    rows = [
        ("cache", described["directory"]),
        ("fingerprint", described["fingerprint"]),
        (
            "images",
            f"{described['num_samples']:,} of {described['size_px']} px: {joined(described['images_per_class'])}",
        ),
        ("subjects", f"{described['num_subjects']:,}"),
        ("given splits", joined(described["given_splits"])),
        ("given folds", joined(described["given_folds"]) or "none"),
        ("files", f"{described['num_shards']} shards{_capacity(described)}, {format_bytes(described['num_bytes'])}"),
        ("codec", _codec_text(described)),
        ("made with", ", ".join(f"{name} {release}" for name, release in described["library_versions"].items())),
        ("recipe", described["recipe"]["name"]),
    ]
    for label, text in rows:
        print_text(f"{label:<13}{text}")
    for number, step in enumerate(described["recipe"]["steps"], 1):
        print_text(f"{'':13}{number}. {format_step(step)}")
    _print_reading(described["reading"])
    quarantined = described["quarantined"]
    print_text(f"{'quarantined':<13}{len(quarantined):,}")
    for image in quarantined[:_MAX_LISTED]:
        print_text(f"{'':13}{image['record_id']}: {image['reason']}")
    if len(quarantined) > _MAX_LISTED:
        print_text(f"{'':13}and {len(quarantined) - _MAX_LISTED} more (--json lists all)")


def _print_reading(values: dict[str, Any] | None) -> None:
    """Say how the source was understood when the cache was built."""
    if values is None:
        print_text(f"{'reading':<13}not recorded: the cache is of version 0.1; the next build records it")
        return
    reading = Reading.from_dict(values)
    options = reading.options.command_text
    for number, line in enumerate([*reading.lines(), *([f"options: {options}"] if options else [])]):
        print_text(f"{'' if number else 'reading':<13}{line}")


def _capacity(described: dict[str, Any]) -> str:
    capacity = described["shard_capacity"]
    return "" if capacity is None else f" of up to {capacity:,} images (--shard-size)"


def format_step(step: dict[str, Any]) -> str:
    """A recipe's step on one line, such as ``clahe clip_limit=3.0 tiles=9``."""
    parameters = " ".join(
        f"{key}={value}" for key, value in step.items() if key not in ("op", "version") and value is not None
    )
    return f"{step['op']} {parameters}".rstrip()
