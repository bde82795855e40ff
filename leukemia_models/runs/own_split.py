"""The split of a run on the cache that is there now: the same samples, whatever else the cache holds by now."""

from __future__ import annotations

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import RunError
from leukemia_data.splitting.split_spec import parse_split
from leukemia_models.runs.data_identity import holds_data, holds_data_and_more
from leukemia_models.runs.run_files import RunConfig, RunFolder, codes_of_rows
from leukemia_models.runs.split_cache import SplitCache
from leukemia_models.runs.split_file import SplitRows, read_split
from leukemia_models.runs.start_weights import recorded_seen_before


def split_of_run(folder: RunFolder, config: RunConfig, cache: Cache) -> SplitCache:
    """Return a run's cache with the split that the run wrote down when it began.

    Every sample of the split must be in the cache with the same pixels, subject and label. Samples that were added
    since are unused; :attr:`~leukemia_models.runs.split_cache.SplitCache.num_added` counts them.

    Parameters
    ----------
    folder, config
        The run.
    cache
        With the fingerprint that the run was begun with.

    Raises
    ------
    RunError
        If a sample is gone or changed, or if the split was written by an earlier version, without the pixels' digests,
        and the cache does not hold exactly its samples and perhaps more.
    """
    rows = read_split(folder.split)
    codes = codes_of_rows(rows, cache)
    _require_known_pixels(folder, config, cache, rows)
    num_added = len(cache.table) - sum(record_id in rows for record_id in cache.table.id_texts)
    before = recorded_seen_before(folder, config, cache, codes)
    return SplitCache(cache, parse_split(config.split), codes, before, num_added)


def _require_known_pixels(folder: RunFolder, config: RunConfig, cache: Cache, rows: SplitRows) -> None:
    if all(row.pixel_digest for row in rows.values()) or holds_data(cache, config.data_digest):
        return
    if not holds_data_and_more(cache, config.data_digest, rows.keys()):
        raise RunError(
            f"{cache.location} was changed after the run began, and {folder.split} is of an earlier version, which "
            "does not tell whether the run's own images are the same. Name the cache it was trained from with --cache, "
            "or train again"
        )


def added_note(data: SplitCache) -> str:
    """Say, in one line or none, that the cache holds samples that the run has never split."""
    if not data.num_added:
        return ""
    return (
        f"{data.cache.location} holds {data.num_added:,} images that were added after the run began: they are in no "
        "part of its split, and are not used"
    )
