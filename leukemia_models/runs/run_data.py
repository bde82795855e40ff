"""The data of a run: whether a cache holds it, and which other images it knows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import LeukemiaError, RunError, UsageError
from leukemia_data.files.text import formula_restored
from leukemia_data.records.fingerprint import blocks_digest, bytes_digest, lines_digest
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable, encode_text
from leukemia_data.sources.positive_class import PositiveClass, place_of_class, require_positive
from leukemia_data.splitting.seen_samples import Naming
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes
from leukemia_data.splitting.subject_groups import near_ties
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import PIXEL_DIGEST, UNUSED_NAME, digest_texts

TRAIN, VALID = SPLIT_NAMES[:2]
LEARNT_PARTS = (TRAIN, VALID)
"""Parts that a network has learnt from, or been chosen by."""
_RANKS = {name: rank for rank, name in enumerate((*SPLIT_NAMES, UNUSED_NAME))}


@dataclass(frozen=True, slots=True)
class KnownSample:
    """One sample of a run's split.

    Attributes
    ----------
    record_id, subject
        As in the cache; the subject is empty where it is unknown.
    label
        Position in the run's classes, or -1.
    split
        ``train``, ``valid``, ``test`` or ``unused``.
    digest
        Of the decoded frame, 32 hexadecimal digits; empty where it is not known.
    """

    record_id: str
    subject: str
    label: int
    split: str
    digest: str


@dataclass(frozen=True)
class KnownSamples:
    """All samples of a run's split.

    Attributes
    ----------
    samples
        In the order of ``split.csv``.
    subjects_from
        What the cache's subjects were read from; empty where the cache is gone.
    """

    samples: Sequence[KnownSample]
    subjects_from: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether there are samples, and every one can be recognised."""
        return bool(self.samples) and all(sample.digest for sample in self.samples)

    def find(self, digest: str) -> KnownSample | None:
        """Return the sample with these pixels; of several one of the training part, else of validation, of test."""
        return self._by_digest.get(digest)

    def in_parts(self, parts: Iterable[str]) -> list[KnownSample]:
        """Return the samples of some parts."""
        wanted = set(parts)
        return [sample for sample in self.samples if sample.split in wanted]

    @cached_property
    def _by_digest(self) -> Mapping[str, KnownSample]:
        known = [sample for sample in self.samples if sample.digest]
        # The last of equal keys stays.
        return {sample.digest: sample for sample in sorted(known, key=lambda sample: -_RANKS[sample.split])}


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
    samples = _read_split(folder, classes)
    if not samples or (KnownSamples(samples).is_complete and not need_source):
        return KnownSamples(samples)
    try:
        cache = open_cache()
    except LeukemiaError:
        return KnownSamples(samples)
    try:
        subjects = cache.manifest.subjects
        digest_of = dict(zip(cache.table.id_texts, digest_texts(cache.table), strict=True))
    finally:
        cache.close()
    return KnownSamples(
        [_with_digest(sample, digest_of) for sample in samples], () if subjects is None else tuple(subjects.sources)
    )


def _with_digest(sample: KnownSample, digest_of: Mapping[str, str]) -> KnownSample:
    if sample.digest:
        return sample
    digest = digest_of.get(sample.record_id, "")
    return KnownSample(sample.record_id, sample.subject, sample.label, sample.split, digest)


def _read_split(folder: RunFolder, classes: Sequence[str]) -> list[KnownSample]:
    if not folder.split.is_file():
        return []
    try:
        # A spreadsheet may have saved it, with a byte order mark.
        with folder.split.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return [_sample(row, classes) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise RunError(f"{folder.split} cannot be read: {error!r}") from error


def _sample(row: Mapping[str, str], classes: Sequence[str]) -> KnownSample:
    split = row["split"]
    if split not in _RANKS:
        raise ValueError(f"split {split!r}")
    return KnownSample(
        formula_restored(row["id"]),
        formula_restored(row["subject"]),
        _label(row["label"], classes),
        split,
        (row.get(PIXEL_DIGEST) or "").strip().lower(),
    )


def _label(text: str, classes: Sequence[str]) -> int:
    """A label's position, written as a number or as the class's name."""
    if text.removeprefix("-").isdecimal():
        return int(text) if 0 <= int(text) < len(classes) else UNKNOWN_LABEL
    place = place_of_class(formula_restored(text), classes) if text else None
    return UNKNOWN_LABEL if place is None else place


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
