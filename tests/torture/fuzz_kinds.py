"""Every kind of file that the programs read, below one folder."""

from __future__ import annotations

from .fuzz_cache_kinds import cache_kinds
from .fuzz_kind import FileKind
from .fuzz_places import Places
from .fuzz_run_kinds import run_kinds
from .fuzz_table_kinds import image_kinds, settings_kinds, table_kinds


def file_kinds(places: Places) -> list[FileKind]:
    """Return all kinds, with seeds and readers in the given folder."""
    found = (cache_kinds(places), run_kinds(places), table_kinds(places), settings_kinds(places), image_kinds(places))
    return [kind for kinds in found for kind in kinds]
