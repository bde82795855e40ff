"""Moved to :mod:`cli.options`."""

from cli.options import READING_NAMES as NAMES
from cli.options import reading_options

__all__ = ["NAMES", "reading_options"]
