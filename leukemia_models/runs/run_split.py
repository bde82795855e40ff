"""The samples of a run: its cache with its split, ``split.csv``, lookup of other images, digests."""

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
    """A cache with the split of a run."""

    cache: Cache
    num_added: int = 0
    """Samples that were added to the cache after the run began; they are unused."""

    def labelled_indices(self, part: str) -> NDArray[np.int64]:
        """Return the indices of the labelled samples of a part; may be empty."""
        indices = split_indices(self.codes, part)
        labelled: NDArray[np.int64] = indices[self.cache.table.labels[indices] != UNKNOWN_LABEL]
        return labelled

    def summary(self, part: str, classes: Sequence[str] | None = None) -> SplitSummary:
        """Return the split as reports describe it, with counts in the order of `classes`, else of the labels."""
        table, names = self.cache.table, self.cache.manifest.classes
        order = [names.index(name) for name in classes or names]
        subjects = np.array(table.subject_texts, object)
        parts = {}
        for name in (*SPLIT_NAMES, *({part} - set(SPLIT_NAMES))):
            indices = split_indices(self.codes, name)
            labels = table.labels[indices]
            images = tuple(int((labels == label).sum()) for label in order)
            people = subjects_per_class(labels, subjects[indices].tolist(), len(names))
            parts[name] = SplitCounts(images, None if people is None else tuple(people[label] for label in order))
        return SplitSummary(str(self.spec), self.leaks, part, parts, self._num_trained(part))

    def stamp_of(self, part: str) -> str:
        """Return the stamp of an evaluated part, as :meth:`summary` has it."""
        return part_stamp(self.leaks, self._num_trained(part))

    def _num_trained(self, part: str) -> int:
        return int((self.codes[split_indices(self.codes, part)] == SPLIT_NAMES.index(TRAIN)).sum())


UNUSED_NAME = "unused"
PIXEL_DIGEST = "pixel_digest"
_COLUMNS = ("id", "subject", "label", "split", PIXEL_DIGEST)
_NAMES = (*SPLIT_NAMES, UNUSED_NAME)


class SplitRow(NamedTuple):
    """A sample in ``split.csv``; ``pixel_digest`` is empty in files of version 0.1."""

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
    """Return the pixel digest of each sample as 32 hexadecimal digits."""
    text, width = table.pixel_digests.tobytes().hex(), 2 * DIGEST_BYTES
    return [text[start : start + width] for start in range(0, len(text), width)]


def split_names(codes: SplitCodes) -> list[str]:
    """Return ``train``, ``valid``, ``test`` or ``unused`` for each sample."""
    return [_NAMES[code] for code in codes]


def write_split(path: Path, table: SampleTable, codes: SplitCodes) -> None:
    """Write ``split.csv`` atomically, sorted by id."""
    columns = (table.id_texts, table.subject_texts, table.labels.tolist(), split_names(codes), digest_texts(table))
    samples = sorted(zip(*columns, strict=True))
    rows = [(formula_safe(record_id), formula_safe(subject), *rest) for record_id, subject, *rest in samples]
    with (
        atomic_path(path) as partial,
        # File names may contain bytes that are no UTF-8.
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
        Classes of the run. With them, labels may also be names, as in a table from elsewhere, and a label that is none
        of them is unknown.

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    try:
        # Spreadsheets add a byte order mark.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return dict(_rows(csv.DictReader(file), classes))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def _rows(reader: csv.DictReader[str], classes: Sequence[str]) -> Iterator[tuple[str, SplitRow]]:
    for cells in reader:
        subject, digest = formula_restored(cells["subject"]), (cells.get(PIXEL_DIGEST) or "").strip().lower()
        row = SplitRow(subject, _label(cells["label"], classes), cells["split"], digest)
        if row.split not in _NAMES or len(bytes.fromhex(digest)) not in (0, DIGEST_BYTES):
            raise ValueError(f"the row of {cells['id']!r} has no valid split or pixel digest")
        yield formula_restored(cells["id"]), row


def _label(text: str, classes: Sequence[str]) -> int:
    if not classes:
        return int(text)
    if text.removeprefix("-").isdecimal():
        return int(text) if 0 <= int(text) < len(classes) else UNKNOWN_LABEL
    place = place_of_class(formula_restored(text), classes) if text else None
    return UNKNOWN_LABEL if place is None else place


def codes_of_rows(rows: SplitRows, cache: Cache) -> SplitCodes:
    """Return the part of each sample of a cache according to a ``split.csv``; samples without a row are unused.

    Raises
    ------
    RunError
        If used samples are missing in the cache, or have other pixels, another subject or another label. A test sample
        without a label may have one now.
    """
    used = {record_id: row for record_id, row in rows.items() if row.split != UNUSED_NAME}
    changes = _changes(used, cache.table)
    if changes:
        raise RunError(
            f"{cache.location} is not the cache that the run began with: of its {len(used):,} images "
            f"{'; '.join(changes)}. Name the cache it was trained from with --cache, or train again"
        )
    return np.array([used[each].code if each in used else UNUSED for each in cache.table.id_texts], np.int8)


def _changes(used: SplitRows, table: SampleTable) -> list[str]:
    """Return a phrase for each kind of change, with a count and an example."""
    columns = (table.subject_texts, table.labels.tolist(), digest_texts(table))
    now = dict(zip(table.id_texts, zip(*columns, strict=True), strict=True))
    examples: tuple[list[str], ...] = ([], [], [], [])
    gone, pixels, labels, subjects = examples
    for record_id, row in used.items():
        if record_id not in now:
            gone.append(record_id)
            continue
        subject, label, digest = now[record_id]
        if row.pixel_digest not in ("", digest):
            pixels.append(record_id)
        if row.label not in (UNKNOWN_LABEL, label):
            labels.append(f"{record_id}: {label} instead of {row.label}")
        if row.subject != subject:
            subjects.append(f"{record_id}: {subject or 'unknown'} instead of {row.subject or 'unknown'}")
    kinds = ("are missing", "have other pixels under the same id", "have another label", "have another subject")
    return [f"{len(found):,} {kind} (first {min(found)})" for kind, found in zip(kinds, examples, strict=True) if found]


LEARNT_PARTS = (TRAIN, VALID)
"""Parts that the network was trained on or chosen by."""


@dataclass(frozen=True)
class KnownSamples:
    """The samples of a run's split, in which other images are looked up.

    Attributes
    ----------
    rows
        By id, in the order of ``split.csv``; labels are positions in the run's classes, or -1.
    subjects_from
        Sources of the subjects' names; empty if the cache is missing.
    """

    rows: SplitRows = field(default_factory=dict)
    subjects_from: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether there are samples, and all have pixel digests."""
        return bool(self.rows) and all(row.pixel_digest for row in self.rows.values())

    def find(self, digest: str) -> SplitRow | None:
        """Return the sample with these pixels; of several the first of train, valid, test, unused."""
        return self._by_digest.get(digest)

    def in_parts(self, parts: Iterable[str]) -> list[SplitRow]:
        """Return the samples of some parts."""
        wanted = set(parts)
        return [row for row in self.rows.values() if row.split in wanted]

    @cached_property
    def _by_digest(self) -> Mapping[str, SplitRow]:
        known = [row for row in self.rows.values() if row.pixel_digest]
        # The last of equal keys stays.
        return {row.pixel_digest: row for row in sorted(known, key=lambda row: -_NAMES.index(row.split))}


def learnt_text(num_known: Mapping[str, int]) -> str:
    """Return ``12 training and 3 validation images of this run``; empty if there are neither."""
    words = {TRAIN: "training", VALID: "validation"}
    counted = [f"{num_known[part]:,} {word}" for part, word in words.items() if num_known.get(part)]
    return f"{' and '.join(counted)} images of this run" if counted else ""


def load_known_samples(
    folder: RunFolder, classes: Sequence[str], open_cache: Callable[[], Cache], *, need_source: bool = False
) -> KnownSamples:
    """Return the samples of a run; none if it has no ``split.csv``.

    Parameters
    ----------
    open_cache
        Opens the run's cache. Called only for missing pixel digests and for `need_source`; a LeukemiaError leaves
        these empty.
    need_source
        Fill in ``subjects_from``.

    Raises
    ------
    RunError
        If ``split.csv`` is damaged.
    """
    known = KnownSamples(read_split(folder.split, classes) if folder.split.is_file() else {})
    if not known.rows or (known.is_complete and not need_source):
        return known
    try:
        cache = open_cache()
    except LeukemiaError:
        return known
    with cache:
        subjects = cache.manifest.subjects
        digest_of = dict(zip(cache.table.id_texts, digest_texts(cache.table), strict=True))
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
    """Return a digest of a cache's samples and their order; independent of how pixels are stored."""
    # Without near-identical images, a cache without looks has the same digest and is split alike.
    return _table_digest(cache.manifest.classes, cache.table, near_ties(cache.table))


def _table_digest(classes: Collection[str], table: SampleTable, ties: NDArray[np.int64]) -> str:
    columns = [np.ascontiguousarray(getattr(table, name)) for name in _TABLE_COLUMNS]
    columns += [ties] if len(ties) else []
    return lines_digest([*classes, *(bytes_digest(column).hex() for column in columns)])


def holds_data(cache: Cache, digest: str) -> bool:
    """Whether the samples of a cache have the recorded :func:`data_digest` of a run."""
    # Runs recorded this one before there were compressed shards.
    shards_digest = lines_digest([*cache.manifest.classes, *(shard.digest for shard in cache.manifest.shards)])
    return digest in (data_digest(cache), shards_digest)


def holds_data_and_more(cache: Cache, digest: str, ids: Collection[str]) -> bool:
    """Whether the samples with these ids, among others, have the recorded :func:`data_digest` of a run.

    Samples are sorted by a hash of their ids, so others between them do not change their order. Ties between
    near-identical images are ignored: they change how a split is drawn, not its samples.
    """
    table = cache.table.take(np.isin(cache.table.ids, np.array([encode_text(each) for each in ids], np.bytes_)))
    own = _as_narrow(table)
    digests = (_table_digest(cache.manifest.classes, own, ties) for ties in (_NO_TIES, near_ties(own)))
    return len(table) == len(ids) and digest in digests


def _as_narrow(table: SampleTable) -> SampleTable:
    """Return the table with text columns as wide as their longest value, as in a cache of these samples alone."""
    columns = {name: getattr(table, name) for name in ("ids", "subjects", "splits")}
    widths = {name: int(np.strings.str_len(column).max(initial=1)) for name, column in columns.items()}
    return replace(table, **{name: column.astype(f"S{widths[name]}") for name, column in columns.items()})


def split_digest(table: SampleTable, codes: SplitCodes) -> str:
    """Return a digest of ids, subjects, parts and pixels of the used samples, and of labels outside the test part.

    It does not depend on unused samples, nor on the order.
    """
    used = np.flatnonzero(codes != UNUSED)
    order = used[np.argsort(table.ids[used], kind="stable")]
    labels = np.where(codes[order] == _TEST, np.int16(-1), table.labels[order])
    return samples_digest(table, order, labels, codes[order].astype(np.int8).tobytes())


def samples_digest(table: SampleTable, rows: NDArray[np.int64], labels: NDArray[np.int16], *more: bytes) -> str:
    """Return a digest of some samples in this order: ids, subjects, labels, `more`, pixels."""
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
    """Return where the subjects' names of a cache come from."""
    subjects = cache.manifest.subjects
    return Naming(cache.manifest.name, "" if subjects is None else "; ".join(subjects.sources))


def positive_of_caches(caches: Sequence[Cache], asked: str | None = None) -> PositiveClass | None:
    """Return the positive class: `asked`, else that of the caches' manifests, else by known names of classes.

    More than two classes have none.

    Raises
    ------
    UsageError
        If `asked` is none of the classes, no rule applies, or the caches have different positive classes.
    """
    chosen = []
    for cache in caches:
        reading = cache.manifest.understood
        built_with = None if reading is None else reading.positive
        if len(cache.manifest.classes) > 2:
            if asked is not None:
                raise UsageError(
                    f"--positive {asked}: one of two classes is the positive one, and {cache.location} has "
                    f"{len(cache.manifest.classes)}: leave it out, or build a cache of two with --merge or --classes"
                )
            return None
        chosen.append(require_positive(cache.manifest.classes, asked, built_with=built_with))
        if chosen[-1].name != chosen[0].name:
            raise UsageError(
                f"the positive class of {caches[0].location} is {chosen[0].name}, that of {cache.location} is "
                f"{chosen[-1].name}: choose one with --positive"
            )
    return chosen[0]
