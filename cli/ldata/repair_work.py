"""The part of ``ldata verify --repair`` that has work to do: find the source and mend."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cli.console import CONSOLE
from cli.output import print_note
from cli.progress import progress_bar
from leukemia_data.building.repair import RepairReport, repair_cache
from leukemia_data.caches.manifest import Manifest, load_manifest
from leukemia_data.errors import SourceError
from leukemia_data.records.record import ImagePlace, Record
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.sources.source_choice import SAMPLE_CACHE_NAME, announce_source, choose_source


@dataclass(frozen=True, slots=True)
class RepairSource:
    """What the command line says of the images that the cache was made from."""

    cache_root: Path
    paths: Sequence[ImagePlace]
    root: ImagePlace | None
    allow_outside: bool


def repair(directory: Path, source: RepairSource) -> RepairReport:
    """Mend a cache from what is intact in it and, where that is not enough, from the source."""
    manifest = load_manifest(directory)
    with progress_bar(manifest.num_samples, "verifying") as bar:
        return repair_cache(
            directory,
            partial(_find_records, manifest, source),
            num_threads=os.cpu_count() or 1,
            progress=bar.update,
        )


def _recorded_options(manifest: Manifest) -> ReadingOptions:
    """What the user said of the source's meaning when the cache was built."""
    return ReadingOptions.from_dict({} if manifest.reading is None else manifest.reading["options"])


def _find_records(manifest: Manifest, source: RepairSource) -> Sequence[Record] | None:
    """The source's records; None where none was given and none lies where a build would look for it."""
    choice = choose_source(source.paths, os.environ, source.cache_root)
    if choice.is_sample and manifest.name != SAMPLE_CACHE_NAME:
        return None
    announce_source(choice, CONSOLE)
    try:
        listing = list_source(
            choice.paths,
            root=source.root,
            allow_outside=source.allow_outside,
            options=_recorded_options(manifest),
            # What they excluded may be gone by now.
            allow_unmatched=True,
        )
    except SourceError as error:
        if source.paths:
            raise
        print_note(f"note: {error}")
        return None
    return listing.records
