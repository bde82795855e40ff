"""What the initial weights of a run were trained on, and the recorded split of a run on its present cache."""

from __future__ import annotations

from collections.abc import Callable
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
from leukemia_models.training.training_plan import SAFETENSORS, SCRATCH


def seen_by_weights(path: Path) -> SeenSamples:
    """Return the samples that the weights of a file, and their own initial weights, were trained on.

    Raises
    ------
    RunError
        If the file is missing, no safetensors file, or a damaged checkpoint.
    """
    return _seen_by(path, frozenset())


def seen_by_checkpoint(info: CheckpointInfo) -> SeenSamples:
    """Return the samples that a checkpoint records; one of an earlier version lacks those of its own run."""
    if info.seen is not None:
        return info.seen
    return NOTHING_SEEN if info.details.get("start", SCRATCH) == SCRATCH else UNKNOWN_ORIGIN


def _seen_by(path: Path, after: frozenset[Path]) -> SeenSamples:
    # Checkpoints are safetensors; what torch saved is of another program.
    info = load_info(path) if path.suffix.lower() == SAFETENSORS else None
    if info is None:
        return UNKNOWN_ORIGIN
    return info.seen if info.seen is not None else _seen_by_earlier_run(path.resolve(), info, after)


def _seen_by_earlier_run(path: Path, info: CheckpointInfo, after: frozenset[Path]) -> SeenSamples:
    """Return what a checkpoint without a record has seen, from the run in whose folder it is."""
    folder = RunFolder(path.parent)
    try:
        config, rows = load_config(folder), read_split(folder.split)
    except RunError:
        return UNKNOWN_ORIGIN
    own = (info.model_name, info.data_fingerprint, info.split_kind, info.details.get("split_seed"))
    if path in after or own != (config.model_name, config.data_fingerprint, config.split, config.split_seed):
        return UNKNOWN_ORIGIN
    before = _before(folder, config, lambda start: _seen_by(start, after | {path}))
    return joined(before, _seen_in_rows(config, rows))


def _before(folder: RunFolder, config: RunConfig, seen_by: Callable[[Path], SeenSamples]) -> SeenSamples:
    """Return what the initial weights of a run have seen."""
    if config.start == SCRATCH:
        return NOTHING_SEEN
    try:
        return seen_by(folder.root / config.start)
    except RunError:
        return UNKNOWN_ORIGIN


def _seen_in_rows(config: RunConfig, rows: SplitRows) -> SeenSamples:
    is_cnmc = all(_is_cnmc(record_id, row) for record_id, row in rows.items() if row.subject)
    columns = {"rows": row_keys(list(map(encode_text, rows)), [encode_text(row.subject) for row in rows.values()])}
    for kind, part in (("trained", "train"), ("chosen", "valid")):
        chosen = [row for row in rows.values() if row.split == part]
        columns[f"{kind}_subjects"] = text_keys([encode_text(row.subject) for row in chosen if row.subject])
        digests = b"".join(bytes.fromhex(row.pixel_digest) for row in chosen)
        columns[f"{kind}_images"] = image_keys(np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES))
    naming = Naming(Path(config.cache_dir).parent.name, CNMC_NAMING if is_cnmc else "")
    unique: dict[str, Any] = {name: np.unique(keys) for name, keys in columns.items()}
    source = SeenSource(naming, **unique)
    return SeenSamples((source,), all(row.subject or row.pixel_digest for row in rows.values() if row.code != UNUSED))


def _is_cnmc(record_id: str, row: SplitRow) -> bool:
    name = parse_cell_name(record_id.rsplit("/", 1)[-1])
    return name is not None and name.subject == row.subject


def seen_before(path: Path, cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Return the overlap of a split with the samples that the weights of a file have seen.

    Raises as :func:`seen_by_weights`.
    """
    return meets(seen_by_weights(path), cache.table, codes, naming_of(cache))


def recorded_seen_before(folder: RunFolder, config: RunConfig, cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Return the recorded overlap of a run's split with its initial weights; computed for runs of earlier versions."""
    if config.seen_before is not None:
        return config.seen_before
    if config.start == SCRATCH:
        return NOTHING_SEEN_BEFORE
    if not Path(config.start).is_absolute():
        return _of_earlier_stage(folder, (folder.root / config.start).resolve().parent, cache, codes)
    seen = _before(folder, config, seen_by_weights)
    return meets(seen, cache.table, codes, naming_of(cache))


def _of_earlier_stage(folder: RunFolder, earlier: Path, cache: Cache, codes: SplitCodes) -> SeenBefore:
    """Return the overlap of the earlier stage, which has the same split."""
    # Stages are numbered, so the recursion ends.
    if earlier.name >= folder.root.resolve().name:
        return SeenBefore(is_known=False)
    try:
        return recorded_seen_before(RunFolder(earlier), load_config(RunFolder(earlier)), cache, codes)
    except RunError:
        return SeenBefore(is_known=False)


def require_unseen(checkpoint: Checkpoint, data: SplitCache) -> None:
    """Raise a RunError if weights of a run with a disjoint split have seen validation or test images."""
    seen, table, naming = checkpoint.info.seen, data.cache.table, naming_of(data.cache)
    if seen is None or not data.leaks.is_disjoint:
        return
    # Looks take seconds, and were compared when the run began.
    found = meets(without_looks(seen), table, data.codes, naming)
    # Images that were added to the cache later may link subjects of different parts.
    own = without_looks(samples_of_split(table, data.codes, naming))
    if found.is_leak and found.num_samples > meets(own, table, data.codes, naming).num_samples:
        raise RunError(
            f"{checkpoint.path} has seen {found.num_samples:,} validation or test images of this run, which recorded "
            "none: the weights are of a run with other initial weights. Restore the run's own checkpoint, or train "
            "again"
        )


def seen_by_run(folder: RunFolder, config: RunConfig, data: SplitCache) -> SeenSamples:
    """Return what the weights of a run have seen when it ends: its own samples and those of its initial weights."""
    own = samples_of_split(data.cache.table, data.codes, naming_of(data.cache))
    return joined(_before(folder, config, seen_by_weights), own)


def split_of_run(folder: RunFolder, config: RunConfig, cache: Cache, console: Console = NULL_CONSOLE) -> SplitCache:
    """Return a run's cache with the recorded split of the run.

    Samples that were added to the cache after the run began are unused.

    Parameters
    ----------
    cache
        With the fingerprint of the run.
    console
        Gets a note if samples were added.

    Raises
    ------
    RunError
        If a sample of the split is missing or changed; or if an earlier version recorded the split, without pixel
        digests, and the recorded digest of all samples differs.
    """
    rows = read_split(folder.split)
    codes = codes_of_rows(rows, cache)
    has_digests = all(row.pixel_digest for row in rows.values())
    recorded = config.data_digest
    if not (has_digests or holds_data(cache, recorded) or holds_data_and_more(cache, recorded, rows.keys())):
        raise RunError(
            f"{cache.location} was changed after the run began, and {folder.split} of an earlier version does not show "
            "whether the run's own images are the same. Name the cache it was trained from with --cache, or train again"
        )
    num_added = len(cache.table) - sum(record_id in rows for record_id in cache.table.id_texts)
    before = recorded_seen_before(folder, config, cache, codes)
    if num_added:
        console.note(
            f"note: {cache.location} holds {num_added:,} images that were added after the run began: they are in no "
            "part of its split, and are not used"
        )
    return SplitCache(cache, parse_split(config.split), codes, before, num_added)
