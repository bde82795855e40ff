"""Options of the commands that use a finished run."""

from __future__ import annotations

from typing import Any

import click

from cli.locations import LocationType
from leukemia_data.errors import UsageError

PART_NAMES = click.Choice(["train", "valid", "test", "all"])

moved_cache_option = click.option(
    "--cache", type=LocationType(), help="Where the run's cache is now, if it was moved: a folder or a URL."
)

batch_size_option = click.option("--batch-size", default=64, show_default=True, type=click.IntRange(1))

device_option = click.option("--device", default="auto", show_default=True)


def choose_part(options: dict[str, Any]) -> None:
    """Take the test part where neither ``images`` nor a ``part`` is given.

    Raises
    ------
    UsageError
        If both are.
    """
    if options["images"] and options["part"] is not None:
        raise UsageError(f"--part {options['part']} is a part of the run's split: leave it out, or the IMAGES")
    options["part"] = options["part"] or "test"
