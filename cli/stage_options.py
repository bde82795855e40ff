"""Where copies of shards go that lie in an object store: the options, and what they mean."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.locations import LocalPath

if TYPE_CHECKING:
    from leukemia_data.caches.local_copies import LocalCopies


@dataclass(frozen=True, slots=True)
class LocalCopiesChoice:
    """Where shards of caches at URLs are copied to, and how much room they may take; None for the defaults."""

    directory: Path | None = None
    max_gb: float | None = None

    def open(self) -> LocalCopies:
        """The stage; nothing is written yet."""
        # Load fsspec, for which a cache on disk has no use.
        from leukemia_data.caches.local_copies import LocalCopies, default_copies_dir

        directory = self.directory or default_copies_dir(os.environ, sys.platform, Path.home())
        return LocalCopies(directory, None if self.max_gb is None else int(self.max_gb * 1e9))


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
