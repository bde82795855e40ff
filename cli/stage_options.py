"""Where copies of shards go that lie in an object store: the options."""

from __future__ import annotations

from pathlib import Path

import click

from cli.locations import LocalPath

stage_dir_option = click.option(
    "--stage-dir",
    type=LocalPath(path_type=Path, file_okay=False),
    help="Folder that holds copies of shards of a cache at a URL.  [default: $LDATA_STAGE, else in the user's caches]",
)

stage_gb_option = click.option(
    "--stage-gb",
    type=click.FloatRange(0, min_open=True),
    help="Room for these copies, in GB.  [default: half of what the disk has without them]",
)
