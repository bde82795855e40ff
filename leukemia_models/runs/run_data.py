"""The data of a run: whether a cache holds it, and which other images it knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import LeukemiaError, UsageError
from leukemia_data.records.fingerprint import blocks_digest, bytes_digest, lines_digest
from leukemia_data.records.sample_table import SampleTable, encode_text
from leukemia_data.sources.positive_class import PositiveClass, require_positive
from leukemia_data.splitting.seen_samples import Naming
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes
from leukemia_data.splitting.subject_groups import near_ties
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import UNUSED_NAME, SplitRow, SplitRows, digest_texts, read_split

TRAIN, VALID = SPLIT_NAMES[:2]
LEARNT_PARTS = (TRAIN, VALID)
"""Parts that a network has learnt from, or been chosen by."""
_RANKS = {name: rank for rank, name in enumerate((*SPLIT_NAMES, UNUSED_NAME))}


@dataclass(frozen=True)
class KnownSamples:
    """The samples of a run's split, to look other images up in.

    Attributes
    ----------
    rows
        By id, in the order of ``split.csv``; labels are positions in the run's classes, or -1.
    subjects_from
        What the cache's subjects were read from; empty where the cache is gone.
    """

    rows: SplitRows = field(default_factory=dict)
    subjects_from: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether there are samples, and every one can be recognised."""
        return bool(self.rows) and all(row.pixel_digest for row in self.rows.values())

    def find(self, digest: str) -> SplitRow | None:
        """Return the sample with these pixels; of several one of the training part, else of validation, of test."""
        return self._by_digest.get(digest)

    def in_parts(self, parts: Iterable[str]) -> list[SplitRow]:
        """Return the samples of some parts."""
        wanted = set(parts)
        return [row for row in self.rows.values() if row.split in wanted]

    @cached_property
    def _by_digest(self) -> Mapping[str, SplitRow]:
        known = [row for row in self.rows.values() if row.pixel_digest]
        # The last of equal keys stays.
        return {row.pixel_digest: row for row in sorted(known, key=lambda row: -_RANKS[row.split])}


def learnt_text(num_known: Mapping[str, int]) -> str:
    """Return such as ``12 training and 3 validation images of this run``; empty where none was learnt from."""
    words = {TRAIN: "training", VALID: "validation"}
    counted = [f"{num_known[part]:,} {word}" for part, word in words.items() if num_known.get(part)]
    return f"{' and '.join(counted)} images of this run" if counted else ""


def load_known_samples(
    folder: RunFolder, classes: Sequence[str], open_cache: Callable[[], Cache], *, need_source: bool = False
) -> KnownSamples:
    """Read ``split.csv`` as far as it is there, and ask the cache for what it does not tell.

    Parameters
    ----------
    folder
        The run.
    classes
        The run's classes.
    open_cache
        Opens the run's cache. It is called only where something is missing, and may raise a LeukemiaError.
    need_source
        Whether it is wanted what the subjects were read from, which the cache alone tells.

    Raises
    ------
    RunError
        If ``split.csv`` is there and damaged.
    """
    known = KnownSamples(read_split(folder.split, classes) if folder.split.is_file() else {})
    if not known.rows or (known.is_complete and not need_source):
        return known
    try:
        cache = open_cache()
    except LeukemiaError:
        return known
    try:
        subjects = cache.manifest.subjects
        digest_of = dict(zip(cache.table.id_texts, digest_texts(cache.table), strict=True))
    finally:
        cache.close()
    rows = {
        record_id: row if row.pixel_digest else row._replace(pixel_digest=digest_of.get(record_id, ""))
        for record_id, row in known.rows.items()
    }
    return KnownSamples(rows, () if subjects is None else tuple(subjects.sources))


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


def positive_of_caches(caches: Sequence[Cache], asked: str | None = None) -> PositiveClass:
    """Return the class that is asked for, else that of the caches' manifests, else the one that the names tell.

    Parameters
    ----------
    caches : sequence of Cache
        Of the same two classes; one or more.
    asked : str, optional
        What ``--positive`` says.

    Raises
    ------
    UsageError
        If `asked` is none of the classes, nothing tells, or the caches say different classes.
    """
    chosen = [_of_cache(cache, asked) for cache in caches]
    for cache, other in zip(caches[1:], chosen[1:], strict=True):
        if other.name != chosen[0].name:
            raise UsageError(
                f"the positive class of {caches[0].location} is {chosen[0].name}, that of {cache.location} is "
                f"{other.name}: say with --positive which one is meant"
            )
    return chosen[0]


def _of_cache(cache: Cache, asked: str | None) -> PositiveClass:
    reading = cache.manifest.understood
    return require_positive(cache.manifest.classes, asked, built_with=None if reading is None else reading.positive)
