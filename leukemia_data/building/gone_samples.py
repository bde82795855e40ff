"""Earlier samples whose ids are gone: an image with a new id may be one of them under another name.

Its pixels are then copied instead of being made again. A digest decides; who might have it is found by what renaming
leaves as it was. Without that, each task would be given all that is gone, and the work would grow with its square.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from leukemia_data.building.prior import PriorCache, PriorMatch, prior_sample
from leukemia_data.building.shard_task import PriorSample, Target
from leukemia_data.samples.file_states import MTIME, SIZE, FileStates, states_array
from leukemia_data.samples.record import Record
from leukemia_data.samples.sample_table import encode_text

FEW_GONE = 1024
"""Up to so many samples are candidates for every new image."""
MOST_ALIKE = 16
"""Of more, each new image has so many candidates with the name of its file, and as many with its state."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class GoneSamples:
    """The rows of earlier caches that hold no image of the source any more.

    Parameters
    ----------
    targets
        All caches of the plan.
    matches
        Where each holds the records of the source; None without an earlier cache.
    """

    def __init__(self, targets: Sequence[Target], matches: Sequence[PriorMatch | None]) -> None:
        self._held = [
            (target, match.prior, _gone_rows(match))
            for target, match in zip(targets, matches, strict=True)
            if match is not None
        ]
        self._all = self._by_digest(rows.tolist() for _, _, rows in self._held) if self._is_few() else None
        self._keys = [] if self._is_few() else [_sorted_keys(prior, rows) for _, prior, rows in self._held]

    def _is_few(self) -> bool:
        return max((len(rows) for _, _, rows in self._held), default=0) <= FEW_GONE

    def candidates(self, new: Sequence[Record]) -> Mapping[bytes, PriorSample]:
        """By the digest of the source file: gone samples that may be one of these images under another name."""
        if not new:
            return {}
        if self._all is not None:
            return self._all
        wanted = np.array([key for record in new for key in _keys_of(record)], np.uint64)
        return self._by_digest(_alike(keys, rows, wanted) for keys, rows in self._keys)

    def _by_digest(self, rows_of_caches: Iterable[list[int]]) -> dict[bytes, PriorSample]:
        """Samples of chosen rows, one list a cache; equal digests mean equal pixels, whatever the ids."""
        held: dict[bytes, dict[int, tuple[Target, PriorCache, int]]] = {}
        for number, ((target, prior, _), rows) in enumerate(zip(self._held, rows_of_caches, strict=True)):
            for row in rows:
                digest = prior.index.table.source_digests[row].tobytes()
                held.setdefault(digest, {}).setdefault(number, (target, prior, row))
        samples = {digest: prior_sample(list(places.values())) for digest, places in held.items()}
        return {digest: sample for digest, sample in samples.items() if sample is not None}


def _gone_rows(match: PriorMatch) -> NDArray[np.int64]:
    is_gone = np.ones(len(match.prior.index.table), np.bool_)
    is_gone[match.rows_N[match.rows_N >= 0]] = False
    return np.flatnonzero(is_gone).astype(np.int64)


def _sorted_keys(prior: PriorCache, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """What a renamed file may be known by, sorted, and the row of each: its name, and its size with its time."""
    index = prior.index
    names = np.fromiter(map(_name_key, index.table.ids[rows].tolist()), np.uint64, len(rows))
    states = _state_keys(index.source_states[rows])
    keys = np.concatenate((names, states))
    order = np.argsort(keys, kind="stable")
    return keys[order], np.concatenate((rows, rows))[order]


def _keys_of(record: Record) -> tuple[int, int]:
    state = _state_keys(states_array([record.state], 1))
    return _name_key(encode_text(record.record_id)), int(state[0])


def _name_key(encoded_id: bytes) -> int:
    """Hash of the file's name, the last part of an id; tables of Windows have backslashes."""
    return xxhash.xxh3_64_intdigest(encoded_id.replace(b"\\", b"/").rpartition(b"/")[2])


def _state_keys(states: FileStates) -> NDArray[np.uint64]:
    """Hash of size and modification time: renaming keeps them, and copies elsewhere often do."""
    return (states[:, SIZE].astype(np.uint64) * _GOLDEN + states[:, MTIME].astype(np.uint64)) * _GOLDEN


def _alike(keys: NDArray[np.uint64], rows: NDArray[np.int64], wanted: NDArray[np.uint64]) -> list[int]:
    """Rows with any of the wanted keys, at most MOST_ALIKE a key."""
    firsts = np.searchsorted(keys, wanted)
    ends = np.minimum(np.searchsorted(keys, wanted, side="right"), firsts + MOST_ALIKE)
    return [row for first, end in zip(firsts.tolist(), ends.tolist(), strict=True) for row in rows[first:end].tolist()]
