"""Which images a run has seen, told by their pixels: the run's split as something that other images are looked up in.

``split.csv`` has a column ``pixel_digest``. Where it has none, as in runs of earlier versions, the run's cache tells
the digests; where that is gone too, no image can be recognised, which is a value of its own and no answer "no".
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import LeukemiaError, RunError
from leukemia_data.files.spreadsheet import formula_restored
from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.sources.class_list import place_of_class
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_models.runs.run_files import RunFolder
from leukemia_models.runs.split_file import PIXEL_DIGEST, UNUSED_NAME, digest_texts

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
