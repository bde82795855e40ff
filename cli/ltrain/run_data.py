"""The cache that a run was trained from, found again and checked."""

from __future__ import annotations

from pathlib import Path

from leukemia_data.caches.cache import Cache, choose_cache_dir, find_cache_dirs, open_cache
from leukemia_data.caches.manifest import MANIFEST_NAME, load_manifest
from leukemia_data.errors import CacheError, RunError
from leukemia_data.splitting.split_spec import parse_split
from leukemia_models.runs.run_files import RunConfig, RunFolder, load_split
from leukemia_models.runs.split_cache import SplitCache


def open_run_cache(config: RunConfig, given: Path | None) -> Cache:
    """Open the run's cache where it was, or where the user says it is now.

    Raises
    ------
    RunError
        If it is not there, or was preprocessed otherwise than the one the run was trained from.
    """
    if given is not None:
        directory = _fitting_dir(config, given)
    else:
        directory = Path(config.cache_dir)
        if not (directory / MANIFEST_NAME).is_file():
            raise RunError(
                f"the run's cache is not at {directory} any more: say with --cache where it is, or build it again"
            )
    cache = open_cache(directory)
    if cache.manifest.fingerprint != config.data_fingerprint:
        raise RunError(
            f"{directory} has fingerprint {cache.manifest.fingerprint[:12]}, the run was trained from "
            f"{config.data_fingerprint[:12]}: another recipe, size or OpenCV release"
        )
    return cache


def split_of_run(folder: RunFolder, config: RunConfig, cache: Cache) -> SplitCache:
    """The run's cache with the split that the run wrote down when it began."""
    return SplitCache(cache, parse_split(config.split), load_split(folder, cache))


def _fitting_dir(config: RunConfig, given: Path) -> Path:
    """The only cache at or below `given` that was made as the run's was, else the only one there."""
    fitting = [path for path in find_cache_dirs(given) if _has_fingerprint(path, config.data_fingerprint)]
    return fitting[0] if len(fitting) == 1 else choose_cache_dir(given)


def _has_fingerprint(directory: Path, fingerprint: str) -> bool:
    try:
        return load_manifest(directory).fingerprint == fingerprint
    except CacheError:
        return False
