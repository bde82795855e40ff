"""Moved to :mod:`cli.options`."""

from cli.options import local_copies_gb_option as stage_gb_option
from cli.options import local_copies_option as stage_dir_option

__all__ = ["stage_dir_option", "stage_gb_option"]
