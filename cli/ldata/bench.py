"""``ldata bench``: how fast this machine feeds a network from a cache."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import (
    augment_option,
    cache_location_argument,
    cache_location_option,
    json_option,
    size_filter_option,
)
from cli.stage_options import stage_dir_option, stage_gb_option
from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.stores.url import Location

_MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@click.command("bench")
@cache_location_argument
@cache_location_option
@size_filter_option
@stage_dir_option
@stage_gb_option
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
    stage_dir: Path | None,
    stage_gb: float | None,
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
    from cli.ldata.bench_work import BenchRequest, bench

    request = BenchRequest(
        location=cache if cache is not None else cache_root,
        stage=LocalCopiesChoice(stage_dir, stage_gb),
        size_px=size_px,
        augment=augment,
        model_name=model_name,
        batch_size=batch_size,
        num_threads=num_threads,
        device=device,
        seconds=seconds,
        as_json=as_json,
    )
    bench(request)
