"""A cache with the split that a run made of it, and split.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leukemia_data.caches.cache import Cache
from leukemia_data.caches.split import Split
from leukemia_data.errors import RunError
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.text import formula_restored, formula_safe, quoting_for
from leukemia_data.records.fingerprint import DIGEST_BYTES
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.positive_class import place_of_class
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes
from leukemia_data.splitting.splits import split_indices
from leukemia_models.evaluation.evaluated_samples import subjects_per_class
from leukemia_models.reports.results import SplitCounts, SplitSummary, part_stamp

TRAIN, VALID, TEST = "train", "valid", "test"


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
