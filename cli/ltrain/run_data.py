"""The cache that a run was trained from, found again and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cli.cache_opening import fingerprints, open_chosen_cache
from cli.output import print_note
from cli.stage_options import LocalCopiesChoice
from leukemia_data.caches.cache import Cache
from leukemia_data.caches.manifest import MANIFEST_NAME
from leukemia_data.errors import RunError
from leukemia_data.stores.url import Location, parse_location
from leukemia_models.runs import start_weights as own_split
from leukemia_models.runs.run_data import KnownSamples, load_known_samples
from leukemia_models.runs.run_folder import RunConfig, RunFolder, load_config
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.checkpoint import Checkpoint


class HasData(Protocol):
    """A run, as far as its samples go."""

    @property
    def data(self) -> SplitCache:
        """Its cache with its split."""
        ...


def open_run_cache(config: RunConfig, given: Location | None, stage: LocalCopiesChoice) -> Cache:
    """Open the run's cache where it was, or where the user says it is now.

    Raises
    ------
    RunError
        If it is not there, or was preprocessed otherwise than the one the run was trained from.
    """
    if given is not None:
        location = _fitting_location(config, given)
    else:
        location = parse_location(config.cache_dir)
        if isinstance(location, Path) and not (location / MANIFEST_NAME).is_file():
            raise RunError(
                f"the run's cache is not at {location} any more: say with --cache where it is, or build it again"
            )
    cache = open_chosen_cache(location, stage)
    if cache.manifest.fingerprint != config.data_fingerprint:
        raise RunError(
            f"{cache.location} has fingerprint {cache.manifest.fingerprint[:12]}, the run was trained from "
            f"{config.data_fingerprint[:12]}: another recipe, size or OpenCV release"
        )
    return cache


def split_of_run(folder: RunFolder, config: RunConfig, cache: Cache) -> SplitCache:
    """The run's cache with the split that the run wrote down when it began; says so if images were added since.

    Raises
    ------
    RunError
        If a sample of the split is gone or changed.
    """
    data = own_split.split_of_run(folder, config, cache)
    if note := own_split.added_note(data):
        print_note(f"note: {note}")
    return data


def known_samples_of_run(
    folder: RunFolder,
    checkpoint: Checkpoint,
    given: Location | None,
    stage: LocalCopiesChoice,
    *,
    need_source: bool = False,
) -> KnownSamples:
    """The run's samples to look other images up in; its cache is asked where it is needed and there.

    Raises
    ------
    RunError, CacheError, StorageError
        If the user says where the cache is, and it cannot be opened.
    """
    config = load_config(folder)
    if given is not None:
        open_run_cache(config, given, stage).close()
    return load_known_samples(
        folder, checkpoint.info.classes, lambda: open_run_cache(config, given, stage), need_source=need_source
    )


def _fitting_location(config: RunConfig, given: Location) -> Location:
    """The only cache at or below `given` that was made as the run's was, else `given` itself."""
    found = fingerprints(given)
    fitting = [location for location, fingerprint in found.items() if fingerprint == config.data_fingerprint]
    return fitting[0] if len(fitting) == 1 else given


@contextmanager
def closing_caches(runs: Iterable[HasData]) -> Iterator[None]:
    """End, after the block, whatever still fetches shards of the runs' caches."""
    try:
        yield
    finally:
        for run in runs:
            run.data.cache.close()
