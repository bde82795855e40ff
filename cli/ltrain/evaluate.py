"""``ltrain evaluate``: judge a run."""

from __future__ import annotations

from pathlib import Path

import click

from cli.ltrain.run_options import (
    PART_NAMES,
    batch_size_option,
    checkpoint_option,
    device_option,
    moved_cache_option,
)
from cli.options import json_option


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--part",
    type=PART_NAMES,
    default="test",
    show_default=True,
    help="What to judge.",
)
@checkpoint_option
@moved_cache_option
@batch_size_option
@device_option
@json_option
def command(run: Path, part: str, which: str, cache: Path | None, batch_size: int, device: str, as_json: bool) -> None:
    """Judge RUN on one part of the split it was trained with, in eval mode.

    Writes results.json, summary.md, confusion.png and predictions.csv into RUN/PART.

    \b
    Examples:
      ltrain evaluate runs/resnet18-128px-subject-seed0
      ltrain evaluate runs/r50 --part valid --checkpoint last --json
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.evaluate_work import evaluate

    evaluate(run, part=part, which=which, cache=cache, batch_size=batch_size, device=device, as_json=as_json)
