"""``ltrain evaluate``: judge a run."""

from __future__ import annotations

from pathlib import Path

import click

from cli.ltrain.devices import choose_device
from cli.ltrain.run_data import open_run_cache
from cli.ltrain.train import result_lines
from cli.options import json_option
from cli.output import print_json
from leukemia_data.splits import parse_split
from leukemia_models.checkpoint import load_checkpoint
from leukemia_models.judge import SplitCache, judge_part
from leukemia_models.run_files import RunFolder, load_config, load_split


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--part",
    type=click.Choice(["train", "valid", "test", "all"]),
    default="test",
    show_default=True,
    help="What to judge.",
)
@click.option("--checkpoint", "which", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), help="Where the run's cache is now, if it was moved."
)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))
@click.option("--device", default="auto", show_default=True)
@json_option
def command(run: Path, part: str, which: str, cache: Path | None, batch_size: int, device: str, as_json: bool) -> None:
    """Judge RUN on one part of the split it was trained with, in eval mode.

    Writes results.json, summary.md, confusion.png and predictions.csv into RUN/PART.

    \b
    Examples:
      ltrain evaluate runs/resnet18-128px-subject-seed0
      ltrain evaluate runs/r50 --part valid --checkpoint last --json
    """
    folder = RunFolder(run)
    config = load_config(folder)
    opened = open_run_cache(config, cache)
    data = SplitCache(opened, parse_split(config.split), load_split(folder, opened))
    checkpoint = load_checkpoint(folder.checkpoint(which))
    out_dir = folder.part(part if which == "best" else f"{part}-{which}")
    results = judge_part(checkpoint, data, part, out_dir, device=choose_device(device), batch_size=batch_size)
    if as_json:
        print_json({"run": str(run), "part": part, "out": str(out_dir), "results": results.to_dict()})
        return
    click.echo(result_lines(part, results))
    click.echo(f"Written to {out_dir}")
