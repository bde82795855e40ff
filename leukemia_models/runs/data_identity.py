"""Whether a cache holds the data that a run was begun with: all of it, or at least the run's own samples."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import Cache
from leukemia_data.samples.fingerprint import blocks_digest, bytes_digest, lines_digest
from leukemia_data.samples.sample_table import SampleTable, encode_text
from leukemia_data.splitting.seen_samples import Naming
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes
from leukemia_data.splitting.subject_groups import near_ties

SPLIT_DIGEST = "split_digest"
"""Name of :func:`split_digest` among the details of a checkpoint."""
_COLUMNS = ("ids", "labels", "subjects", "crcs", "channel_sums", "pixel_digests")
_TEST = SPLIT_NAMES.index("test")
_NO_TIES = np.zeros((0, 2), np.int64)


def data_digest(cache: Cache) -> str:
    """Identity of a cache's samples and their order, however their pixels are stored."""
    # Where near-identical images tie nobody, a cache without looks holds the same data and is split alike.
    return _table_digest(cache.manifest.classes, cache.table, near_ties(cache.table))


def _table_digest(classes: Collection[str], table: SampleTable, ties: NDArray[np.int64]) -> str:
    columns = [np.ascontiguousarray(getattr(table, name)) for name in _COLUMNS]
    columns += [ties] if len(ties) else []
    return lines_digest([*classes, *(bytes_digest(column).hex() for column in columns)])


def holds_data(cache: Cache, digest: str) -> bool:
    """Whether a cache holds the data of which a run wrote down this digest, and nothing else."""
    return digest in (data_digest(cache), _shards_digest(cache))


def _shards_digest(cache: Cache) -> str:
    """What runs wrote down before there were compressed shards."""
    return lines_digest([*cache.manifest.classes, *(shard.digest for shard in cache.manifest.shards)])


def holds_data_and_more(cache: Cache, digest: str, ids: Collection[str]) -> bool:
    """Whether a cache holds the data of which a run wrote down this digest under these ids, all of them unchanged.

    Samples are in the order of a hash of their ids, so others between them leave their order as it was. Whether
    near-identical images tie any of them does not count: that changes how a split is drawn, not the samples of one.
    """
    table = cache.table.take(np.isin(cache.table.ids, np.array([encode_text(each) for each in ids], np.bytes_)))
    own = _as_narrow(table)
    digests = (_table_digest(cache.manifest.classes, own, ties) for ties in (_NO_TIES, near_ties(own)))
    return len(table) == len(ids) and digest in digests


def _as_narrow(table: SampleTable) -> SampleTable:
    """The table with texts no wider than its own longest, as a cache of these samples alone has them."""
    columns = {name: getattr(table, name) for name in ("ids", "subjects", "splits")}
    widths = {name: int(np.strings.str_len(column).max(initial=1)) for name, column in columns.items()}
    return replace(table, **{name: column.astype(f"S{widths[name]}") for name, column in columns.items()})


def split_digest(table: SampleTable, codes: SplitCodes) -> str:
    """Identity of a split: ids, subjects, parts and pixels of the samples in it, and labels outside the test part.

    Samples in no part do not count, nor does the order: a cache with more samples has the same. Labels of test samples
    may come later.
    """
    used = np.flatnonzero(codes != UNUSED)
    order = used[np.argsort(table.ids[used], kind="stable")]
    labels = np.where(codes[order] == _TEST, np.int16(-1), table.labels[order])
    return samples_digest(table, order, labels, codes[order].astype(np.int8).tobytes())


def samples_digest(table: SampleTable, rows: NDArray[np.int64], labels: NDArray[np.int16], *more: bytes) -> str:
    """Identity of some samples in this order: ids, subjects, these labels, whatever is added, and pixels."""
    return blocks_digest(
        [
            b"\n".join(table.ids[rows].tolist()),
            b"\n".join(table.subjects[rows].tolist()),
            labels.astype("<i2").tobytes(),
            *more,
            np.ascontiguousarray(table.pixel_digests[rows]).tobytes(),
        ]
    )


def naming_of(cache: Cache) -> Naming:
    """Whose names the subjects of a cache are."""
    subjects = cache.manifest.subjects
    return Naming(cache.manifest.name, "" if subjects is None else "; ".join(subjects.sources))
