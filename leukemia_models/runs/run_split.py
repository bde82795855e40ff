"""The data of a run: its cache with its split, split.csv, and which other images it knows."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import Cache, Split
from leukemia_data.errors import LeukemiaError, RunError, UsageError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import formula_restored, formula_safe, quoting_for
from leukemia_data.records.fingerprint import DIGEST_BYTES, blocks_digest, bytes_digest, lines_digest
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable, encode_text
from leukemia_data.sources.positive_class import PositiveClass, place_of_class, require_positive
from leukemia_data.splitting.seen_samples import Naming
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes
from leukemia_data.splitting.splits import split_indices
from leukemia_data.splitting.subject_groups import near_ties
from leukemia_models.evaluation.evaluated_samples import subjects_per_class
from leukemia_models.reports.results import SplitCounts, SplitSummary, part_stamp
from leukemia_models.runs.run_folder import RunFolder

TRAIN, VALID, TEST = SPLIT_NAMES


@dataclass(frozen=True, repr=False, eq=False)
class SplitCache(Split):
    """A cache with the split that a run made of it."""

    cache: Cache
    num_added: int = 0
    """Samples of the cache that came after the run began; they are unused."""

    def summary(self, part: str, classes: Sequence[str] | None = None) -> SplitSummary:
        """Return the split as reports describe it, with counts in the order of `classes`, else of the labels."""
        table, names = self.cache.table, self.cache.manifest.classes
        order = [names.index(name) for name in classes or names]
        subjects = np.array(table.subject_texts, object)
        parts = {}
        for name in (*SPLIT_NAMES, *({part} - set(SPLIT_NAMES))):
            numbers = split_indices(self.codes, name)
            labels = table.labels[numbers]
            counts = tuple(int((labels == label).sum()) for label in order)
            people = subjects_per_class(labels, subjects[numbers].tolist(), len(names))
            parts[name] = SplitCounts(counts, None if people is None else tuple(people[label] for label in order))
        return SplitSummary(str(self.spec), self.leaks, part, parts, self._num_trained(part))

    def stamp_of(self, part: str) -> str:
        """The stamp of an evaluated part, as :meth:`summary` has it, without counting the parts."""
        return part_stamp(self.leaks, self._num_trained(part))

    def _num_trained(self, part: str) -> int:
        return int((self.codes[split_indices(self.codes, part)] == SPLIT_NAMES.index(TRAIN)).sum())


UNUSED_NAME = "unused"
PIXEL_DIGEST = "pixel_digest"
_COLUMNS = ("id", "subject", "label", "split", PIXEL_DIGEST)
_NAMES = (*SPLIT_NAMES, UNUSED_NAME)
_CHANGES = _GONE, _PIXELS, _LABEL, _SUBJECT = (
    "are no longer there",
    "have other pixels under the same id",
    "have another label",
    "have another subject",
)


class SplitRow(NamedTuple):
    """One sample as ``split.csv`` has it; ``pixel_digest`` is empty in files of version 0.1."""

    subject: str
    label: int
    split: str
    pixel_digest: str

    @property
    def code(self) -> int:
        """Position in SPLIT_NAMES, or UNUSED."""
        return UNUSED if self.split == UNUSED_NAME else SPLIT_NAMES.index(self.split)


SplitRows = Mapping[str, SplitRow]
"""By id."""


def digest_texts(table: SampleTable) -> list[str]:
    """Return the samples' pixel digests as ``split.csv`` has them: 32 hexadecimal digits each."""
    text, width = table.pixel_digests.tobytes().hex(), 2 * DIGEST_BYTES
    return [text[start : start + width] for start in range(0, len(text), width)]


def split_names(codes: SplitCodes) -> list[str]:
    """Return the name of each sample's part: ``train``, ``valid``, ``test`` or ``unused``."""
    return [_NAMES[code] for code in codes]


def write_split(path: Path, table: SampleTable, codes: SplitCodes) -> None:
    """Write ``split.csv`` atomically, in the order of the ids."""
    names, digests = split_names(codes), digest_texts(table)
    columns = (table.id_texts, table.subject_texts, table.labels.tolist(), names, digests)
    known = sorted(zip(*columns, strict=True))
    rows = [(formula_safe(record_id), formula_safe(subject), *rest) for record_id, subject, *rest in known]
    with (
        atomic_path(path) as partial,
        # File names may hold bytes that are no UTF-8.
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n", quoting=quoting_for(cell for row in rows for cell in row))
        writer.writerow(_COLUMNS)
        writer.writerows(rows)


def read_split(path: Path, classes: Sequence[str] = ()) -> dict[str, SplitRow]:
    """Read ``split.csv``.

    Parameters
    ----------
    path
        The file.
    classes
        Those of the run, where labels may also be their names, as somebody else's table has them; a label that is none
        of them is then unknown.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    try:
        # A spreadsheet may have saved it, with a byte order mark.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return dict(_rows(csv.DictReader(file), classes))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def _rows(reader: csv.DictReader[str], classes: Sequence[str]) -> Iterator[tuple[str, SplitRow]]:
    for cells in reader:
        subject, digest = formula_restored(cells["subject"]), (cells.get(PIXEL_DIGEST) or "").strip().lower()
        row = SplitRow(subject, _label(cells["label"], classes), cells["split"], digest)
        if row.split not in _NAMES or len(bytes.fromhex(digest)) not in (0, DIGEST_BYTES):
            raise ValueError(f"the row of {cells['id']!r} is no row of a split")
        yield formula_restored(cells["id"]), row


def _label(text: str, classes: Sequence[str]) -> int:
    if not classes:
        return int(text)
    if text.removeprefix("-").isdecimal():
        return int(text) if 0 <= int(text) < len(classes) else UNKNOWN_LABEL
    place = place_of_class(formula_restored(text), classes) if text else None
    return UNKNOWN_LABEL if place is None else place


def changes_of_rows(rows: SplitRows, table: SampleTable) -> list[str]:
    """Tell how a cache differs from the samples that a run split, in phrases with counts and an example each.

    Samples that the run did not use are left out, and a test sample whose label was unknown may have one now.
    """
    now = _CacheRows(table)
    examples: dict[str, list[str]] = {kind: [] for kind in _CHANGES}
    for record_id, row in rows.items():
        for kind, example in now.changes(record_id, row) if row.split != UNUSED_NAME else ():
            examples[kind].append(example)
    return [f"{len(found):,} {kind} (first {min(found)})" for kind, found in examples.items() if found]


class _CacheRows:
    """The columns of a cache that a split depends on, as ``split.csv`` has them."""

    def __init__(self, table: SampleTable) -> None:
        self._number_of = {record_id: number for number, record_id in enumerate(table.id_texts)}
        self._subjects, self._labels = table.subject_texts, table.labels.tolist()
        self._digests = digest_texts(table)

    def changes(self, record_id: str, row: SplitRow) -> Iterator[tuple[str, str]]:
        """Yield the kinds of :data:`_CHANGES` that a sample went through, each with the sample as an example."""
        number = self._number_of.get(record_id)
        if number is None:
            yield _GONE, record_id
            return
        if row.pixel_digest and row.pixel_digest != self._digests[number]:
            yield _PIXELS, record_id
        if row.label not in (UNKNOWN_LABEL, label := self._labels[number]):
            yield _LABEL, f"{record_id}: {label} instead of {row.label}"
        if row.subject != (subject := self._subjects[number]):
            yield _SUBJECT, f"{record_id}: {subject or 'unknown'} instead of {row.subject or 'unknown'}"


def codes_of_rows(rows: SplitRows, cache: Cache) -> SplitCodes:
    """Return the parts of a cache's samples, as the rows of a ``split.csv`` tell them; unknown samples are unused.

    Raises
    ------
    RunError
        If the cache holds samples of the split no longer, or with other pixels, of another subject or with another
        label.
    """
    changes = changes_of_rows(rows, cache.table)
    if changes:
        num_used = sum(row.split != UNUSED_NAME for row in rows.values())
        raise RunError(
            f"{cache.location} is not what the run was begun with: of its {num_used:,} images {'; '.join(changes)}. "
            "Name the cache it was trained from with --cache, or train again"
        )
    codes = {record_id: row.code for record_id, row in rows.items()}
    return np.array([codes.get(record_id, UNUSED) for record_id in cache.table.id_texts], np.int8)


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
_TABLE_COLUMNS = ("ids", "labels", "subjects", "crcs", "channel_sums", "pixel_digests")
_TEST = SPLIT_NAMES.index("test")
_NO_TIES = np.zeros((0, 2), np.int64)


def data_digest(cache: Cache) -> str:
    """Identity of a cache's samples and their order, however their pixels are stored."""
    # Where near-identical images tie nobody, a cache without looks holds the same data and is split alike.
    return _table_digest(cache.manifest.classes, cache.table, near_ties(cache.table))


def _table_digest(classes: Collection[str], table: SampleTable, ties: NDArray[np.int64]) -> str:
    columns = [np.ascontiguousarray(getattr(table, name)) for name in _TABLE_COLUMNS]
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
