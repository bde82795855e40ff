"""``ldata bench``: how fast this machine feeds a network from a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import (
    augment_option,
    cache_location_argument,
    cache_location_option,
    json_option,
    local_copies_gb_option,
    local_copies_option,
    size_filter_option,
)
from cli.output import format_table, print_json, print_text
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_models.experiments.stream_bench import StreamBench

_MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@click.command("bench")
@cache_location_argument
@cache_location_option
@size_filter_option
@local_copies_option
@local_copies_gb_option
@augment_option
@click.option("--model", "model_name", type=click.Choice(_MODELS), default="resnet18", show_default=True)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(2))
@click.option("--num-threads", type=click.IntRange(1), help="Threads of the stream.  [default: one a core, at most 4]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--seconds", default=3.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Time for each measurement."
)
@json_option
def command(
    cache: Location | None,
    cache_root: Location,
    size_px: int | None,
    local_copies: Path | None,
    local_copies_gb: float | None,
    augment: str,
    model_name: str,
    batch_size: int,
    num_threads: int | None,
    device: str,
    seconds: float,
    as_json: bool,
) -> None:
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
    from leukemia_data.caches.opening import LocalCopiesChoice
    from leukemia_models.experiments.stream_bench import measure_stream

    result = measure_stream(
        cache or cache_root,
        load_augmentation(augment),
        size_px=size_px,
        copies=LocalCopiesChoice(local_copies, local_copies_gb),
        model_name=model_name,
        batch_size=batch_size,
        num_threads=num_threads,
        device=device,
        seconds=seconds,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        print_text("\n".join(bench_lines(result)))


def bench_lines(result: StreamBench) -> Iterator[str]:
    """What was measured, for people."""
    ceiling, stream = result.ceiling_images_per_s, result.stream_images_per_s
    threads = f"{result.num_threads} threads"
    rows = [
        [f"memory copies, {threads}", f"{ceiling:,.0f}", "the ceiling"],
        [f"stream of uint8 batches, {threads}", f"{stream:,.0f}", f"{stream / ceiling:.2f} of it"],
        [f"augmentation {result.augmentation}", f"{result.augment_images_per_s:,.0f}", ""],
        [f"training {result.model_name}", f"{result.train_images_per_s:,.0f}", ""],
    ]
    yield (
        f"{result.cache}: {result.num_samples:,} images of {result.size_px} px, batches of {result.batch_size}, "
        f"on {result.device}; {result.residency}\n"
    )
    yield format_table(["", "images/s", ""], rows)
    yield f"\nFirst batch {result.first_batch_s:.2f} s after opening the cache."
    yield (
        f"An epoch of {result.num_samples:,} images takes {result.epoch_s:,.1f} s, of which it waits "
        f"{result.epoch_wait_s:.2f} s for data ({100 * result.epoch_wait_s / result.epoch_s:.2f} %)."
    )
    yield f"The stream could feed {stream / result.train_images_per_s:,.0f} times as fast a network."
    if result.traffic:
        yield f"From the URL: {result.traffic}."
