"""Whether a cache holds the data that a run was begun with."""

from __future__ import annotations

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.samples.fingerprint import bytes_digest, lines_digest
from leukemia_data.splitting.subject_groups import near_ties

_COLUMNS = ("ids", "labels", "subjects", "crcs", "channel_sums", "pixel_digests")


def data_digest(cache: Cache) -> str:
    """Identity of a cache's samples and their order, however their pixels are stored."""
    columns = [np.ascontiguousarray(getattr(cache.table, name)) for name in _COLUMNS]
    ties = near_ties(cache.table)
    # Where near-identical images tie nobody, a cache without looks holds the same data and is split alike.
    columns += [ties] if len(ties) else []
    return lines_digest([*cache.manifest.classes, *(bytes_digest(column).hex() for column in columns)])


def holds_data(cache: Cache, digest: str) -> bool:
    """Whether a cache holds the data of which a run wrote down this digest."""
    return digest in (data_digest(cache), _shards_digest(cache))


def _shards_digest(cache: Cache) -> str:
    """What runs wrote down before there were compressed shards."""
    return lines_digest([*cache.manifest.classes, *(shard.digest for shard in cache.manifest.shards)])
