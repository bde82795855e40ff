"""Options of the commands that use a finished run."""

from __future__ import annotations

import click

from cli.locations import LocationType

PART_NAMES = click.Choice(["train", "valid", "test", "all"])

moved_cache_option = click.option(
    "--cache", type=LocationType(), help="Where the run's cache is now, if it was moved: a folder or a URL."
)

batch_size_option = click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))

device_option = click.option("--device", default="auto", show_default=True)
