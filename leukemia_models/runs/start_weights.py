"""What the weights that a run starts from have seen, and the run's own split on the cache that is there now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError
from leukemia_data.records.fingerprint import DIGEST_BYTES
from leukemia_data.records.record import parse_cell_name
from leukemia_data.records.sample_table import encode_text
from leukemia_data.sources.reading import CNMC_NAMING
from leukemia_data.splitting.seen_samples import (
    NOTHING_SEEN,
    NOTHING_SEEN_BEFORE,
    UNKNOWN_ORIGIN,
    Keys,
    Naming,
    SeenBefore,
    SeenSamples,
    SeenSource,
    image_keys,
    joined,
    meets,
    row_keys,
    samples_of_split,
    text_keys,
    without_looks,
)
from leukemia_data.splitting.split_spec import UNUSED, SplitCodes, parse_split
from leukemia_models.runs.run_config import RunConfig, load_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import (
    SplitCache,
    SplitRow,
    SplitRows,
    codes_of_rows,
    holds_data,
    holds_data_and_more,
    naming_of,
    read_split,
)
from leukemia_models.training.checkpoint import Checkpoint, CheckpointInfo, load_info
from leukemia_models.training.training_plan import SCRATCH


def seen_by_weights(path: Path) -> SeenSamples:
    """Return what the weights of a safetensors file have seen, those before them included.

    Raises
    ------
    RunError
        If the file is missing, no safetensors file, or a damaged checkpoint.
    """
    return _seen_by(path, frozenset())


def seen_by_checkpoint(info: CheckpointInfo) -> SeenSamples:
    """Return what a checkpoint says that its weights have seen, beside the samples of its own run where it is old."""
    if info.seen is not None:
        return info.seen
    return NOTHING_SEEN if info.details.get("start", SCRATCH) == SCRATCH else UNKNOWN_ORIGIN


def _seen_by(path: Path, after: frozenset[Path]) -> SeenSamples:
    info = load_info(path)
    if info is None:
        return UNKNOWN_ORIGIN
    return info.seen if info.seen is not None else _seen_by_earlier_run(path.resolve(), info, after)


def _seen_by_earlier_run(path: Path, info: CheckpointInfo, after: frozenset[Path]) -> SeenSamples:
    """Of a checkpoint that does not say it: by the run it lies in, if that is its run."""
    folder = RunFolder(path.parent)
    try:
        config, rows = load_config(folder), read_split(folder.split)
    except RunError:
        return UNKNOWN_ORIGIN
    if path in after or not _is_of_run(info, config):
        return UNKNOWN_ORIGIN
    before = _before(folder, config, lambda start: _seen_by(start, after | {path}))
    return joined(before, _seen_in_rows(config, rows))


def _is_of_run(info: CheckpointInfo, config: RunConfig) -> bool:
    own = (info.model_name, info.data_fingerprint, info.split_kind, info.details.get("split_seed"))
    return own == (config.model_name, config.data_fingerprint, config.split, config.split_seed)


def _before(folder: RunFolder, config: RunConfig, seen_by: Callable[[Path], SeenSamples]) -> SeenSamples:
    """What the weights had seen that a run started from."""
    if config.start == SCRATCH:
        return NOTHING_SEEN
    try:
        return seen_by(folder.root / config.start)
    except RunError:
        return UNKNOWN_ORIGIN


def _seen_in_rows(config: RunConfig, rows: SplitRows) -> SeenSamples:
    is_cnmc = all(_is_cnmc(record_id, row) for record_id, row in rows.items() if row.subject)
    columns = {"rows": _row_keys(rows)}
    for kind, part in (("trained", "train"), ("chosen", "valid")):
        chosen = [row for row in rows.values() if row.split == part]
        columns[f"{kind}_subjects"] = text_keys([encode_text(row.subject) for row in chosen if row.subject])
        columns[f"{kind}_images"] = _image_keys([row for row in chosen if row.pixel_digest])
    naming = Naming(Path(config.cache_dir).parent.name, CNMC_NAMING if is_cnmc else "")
    unique: dict[str, Any] = {name: np.unique(keys) for name, keys in columns.items()}
    source = SeenSource(naming, **unique)
    return SeenSamples((source,), all(row.subject or row.pixel_digest for row in rows.values() if row.code != UNUSED))


def _is_cnmc(record_id: str, row: SplitRow) -> bool:
    name = parse_cell_name(record_id.rsplit("/", 1)[-1])
    return name is not None and name.subject == row.subject


def _row_keys(rows: SplitRows) -> Keys:
    return row_keys(list(map(encode_text, rows)), [encode_text(row.subject) for row in rows.values()])


def _image_keys(rows: Sequence[SplitRow]) -> Keys:
    digests = b"".join(bytes.fromhex(row.pixel_digest) for row in rows)
    return image_keys(np.frombuffer(digests, np.uint8).reshape(len(rows), DIGEST_BYTES))


def seen_before(path: Path, cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Find where a split of a cache meets what the weights of a file have seen.

    Raises
    ------
    RunError
        If the file is missing, no safetensors file, or a damaged checkpoint.
    """
    return meets(seen_by_weights(path), cache.table, codes, naming_of(cache))


def recorded_seen_before(folder: RunFolder, config: RunConfig, cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Return what a run wrote down of its start; of an earlier version's, what can still be found out."""
    if config.seen_before is not None:
        return config.seen_before
    if config.start == SCRATCH:
        return NOTHING_SEEN_BEFORE
    if not Path(config.start).is_absolute():
        return _of_earlier_stage(folder, (folder.root / config.start).resolve().parent, cache, codes)
    seen = _before(folder, config, seen_by_weights)
    return meets(seen, cache.table, codes, naming_of(cache))


def _of_earlier_stage(folder: RunFolder, earlier: Path, cache: Cache, codes: SplitCodes) -> SeenBefore:
    """What the stage met that a stage starts from: both have one split."""
    # Stages are numbered, so this ends.
    if earlier.name >= folder.root.resolve().name:
        return SeenBefore(is_known=False)
    try:
        return recorded_seen_before(RunFolder(earlier), load_config(RunFolder(earlier)), cache, codes)
    except RunError:
        return SeenBefore(is_known=False)


def require_unseen(checkpoint: Checkpoint, data: SplitCache) -> None:
    """Refuse weights that have seen what the run's split calls unseen, as those of a run with another start have.

    Raises
    ------
    RunError
        With the number of validation and test images that the weights have seen.
    """
    seen, table, naming = checkpoint.info.seen, data.cache.table, naming_of(data.cache)
    if seen is None or not data.leaks.is_disjoint:
        return
    # By images and names alone: looks take seconds, and were compared when the run began.
    seen = without_looks(seen)
    found = meets(seen, table, data.codes, naming)
    # Images that came into the cache later may tie together what the run itself holds apart.
    own = without_looks(samples_of_split(table, data.codes, naming))
    if found.is_leak and found.num_samples > meets(own, table, data.codes, naming).num_samples:
        raise RunError(
            f"{checkpoint.path} has seen {found.num_samples:,} validation or test images of this run, which says that "
            "it has seen none: the weights are of a run with another start. Put the run's own checkpoint back, or "
            "train again"
        )


def seen_by_run(folder: RunFolder, config: RunConfig, data: SplitCache) -> SeenSamples:
    """Return what the weights of a run will have seen when it ends: what its start has, and its own samples."""
    own = samples_of_split(data.cache.table, data.codes, naming_of(data.cache))
    return joined(_before(folder, config, seen_by_weights), own)


def split_of_run(folder: RunFolder, config: RunConfig, cache: Cache, console: Console = NULL_CONSOLE) -> SplitCache:
    """Return a run's cache with the split that the run wrote down when it began.

    Every sample of the split must be in the cache with the same pixels, subject and label. Samples that were added
    since are unused; :attr:`~leukemia_models.runs.run_split.SplitCache.num_added` counts them.

    Parameters
    ----------
    folder, config
        The run.
    cache
        With the fingerprint that the run was begun with.
    console
        Gets a note if images were added since.

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
    if num_added:
        console.note(
            f"note: {cache.location} holds {num_added:,} images that were added after the run began: they are in no "
            "part of its split, and are not used"
        )
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
