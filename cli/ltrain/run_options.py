"""Options of the commands that use a finished run."""

from __future__ import annotations

from pathlib import Path

import click

PART_NAMES = click.Choice(["train", "valid", "test", "all"])

moved_cache_option = click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), help="Where the run's cache is now, if it was moved."
)

batch_size_option = click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))

device_option = click.option("--device", default="auto", show_default=True)
