"""The part of ``ltrain evaluate`` that needs torch."""

from __future__ import annotations

from pathlib import Path

import click

from cli.ltrain.devices import choose_device
from cli.ltrain.run_data import open_run_cache, split_of_run
from cli.ltrain.text import result_lines
from cli.output import print_json
from leukemia_models.checkpoint import load_checkpoint
from leukemia_models.judge import judge_part
from leukemia_models.run_files import RunFolder, load_config


def evaluate(
    run: Path, *, part: str, which: str, cache: Path | None, batch_size: int, device: str, as_json: bool
) -> None:
    """Judge a run's checkpoint on one part and print the result."""
    folder = RunFolder(run)
    config = load_config(folder)
    opened = open_run_cache(config, cache)
    data = split_of_run(folder, config, opened)
    checkpoint = load_checkpoint(folder.checkpoint(which))
    out_dir = folder.part(part if which == "best" else f"{part}-{which}")
    results = judge_part(checkpoint, data, part, out_dir, device=choose_device(device), batch_size=batch_size)
    if as_json:
        print_json({"run": str(run), "part": part, "out": str(out_dir), "results": results.to_dict()})
        return
    click.echo(result_lines(part, results))
    click.echo(f"Written to {out_dir}")
