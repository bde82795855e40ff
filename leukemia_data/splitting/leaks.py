"""Leaks: find and refuse what is on two sides of a split, or in an outside set and in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leukemia_data.console import Console
from leukemia_data.errors import UsageError
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable, decode_texts
from leukemia_data.sources.name_words import alike_subjects
from leukemia_data.sources.reading import CNMC_NAMING, SubjectsFound
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_spec import UNUSED, SplitCodes
from leukemia_data.splitting.subject_groups import digest_codes, shown_codes, text_codes

DISJOINT_STAMP = "subject-disjoint"
"""Start of the stamp of a split without a leak; the source of its subjects may follow."""

# Counts of a LeakCheck that must be 0 in a disjoint split, and their names in stamps, singular and plural.
_WORDS = {
    "shared_subjects": ("subject on both sides", "subjects on both sides"),
    "shared_images": ("identical image on both sides", "identical images on both sides"),
    "near_images": ("near-identical image on both sides", "near-identical images on both sides"),
    "unknown_subjects": ("image of an unknown subject", "images of unknown subjects"),
    "doubtful_subjects": ("subject with images of several classes", "subjects with images of several classes"),
    "contradictory_images": ("image with several labels", "images with several labels"),
    "near_contradictions": ("near-identical image with several labels", "near-identical images with several labels"),
    "alike_subjects": ("subject written in several ways", "subjects written in several ways"),
    "start_subjects": ("held-out subject seen by the start weights", "held-out subjects seen by the start weights"),
    "start_images": ("held-out image seen by the start weights", "held-out images seen by the start weights"),
}
# Counts that are worth a caution, but are no proof.
_DOUBTS = ("unknown_start", "start_namesakes")


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """Counts of what is on two sides of a split.

    Attributes
    ----------
    shared_subjects
        Subjects with samples in more than one split.
    shared_images
        Groups of pixel-identical images in more than one split.
    unknown_subjects
        Samples in a split without a known subject.
    doubtful_subjects
        Subjects with samples of several classes, in the split or not, unless the user confirmed the subjects.
    contradictory_images
        Groups of pixel-identical images with several labels.
    alike_subjects
        Groups of subjects, in the split or not, that differ only in case, separators, leading zeros and ``.0``,
        unless the user confirmed the subjects.
    near_images
        Groups of near-identical images in more than one split, apart from identical ones.
    near_contradictions
        Groups of near-identical images with several labels, apart from identical ones.
    subjects_from
        What the subjects were read from; empty in caches of version 0.1.
    start_subjects, start_images
        Validation and test subjects and images that the start weights of a training have seen, see
        :func:`~leukemia_data.splitting.seen_samples.meets`.
    unknown_start
        1 if it is unknown what these weights have seen, otherwise 0.
    start_namesakes
        Validation and test subjects with the name of one that these weights have seen in another source.
    """

    shared_subjects: int
    shared_images: int
    unknown_subjects: int
    doubtful_subjects: int = 0
    contradictory_images: int = 0
    alike_subjects: int = 0
    near_images: int = 0
    near_contradictions: int = 0
    subjects_from: str = ""
    start_subjects: int = 0
    start_images: int = 0
    unknown_start: int = 0
    start_namesakes: int = 0

    @classmethod
    def worst(cls, checks: Sequence[LeakCheck]) -> LeakCheck:
        """Return the maximum of each count, and all sources of subjects."""
        sources = dict.fromkeys(check.subjects_from for check in checks if check.subjects_from)
        counts = {name: max(getattr(check, name) for check in checks) for name in (*_WORDS, *_DOUBTS)}
        return cls(**counts, subjects_from="; ".join(sources))

    @property
    def is_disjoint(self) -> bool:
        """Whether results on this split are results on unseen patients."""
        return not any(getattr(self, name) for name in _WORDS)

    @property
    def stamp(self) -> str:
        """The text on every table, figure and page of this split."""
        if self.is_disjoint:
            return f"{DISJOINT_STAMP} (subjects from {self.subjects_from})" if self.subjects_from else DISJOINT_STAMP
        counts = {name: getattr(self, name) for name in _WORDS}
        reasons = [f"{count} {_WORDS[name][count != 1]}" for name, count in counts.items() if count]
        return f"PATIENT-MIXED ({', '.join(reasons)})"


def require_no_leak(
    leaks: LeakCheck, split: str, *, allow_leak: bool, advice: Callable[[], str], console: Console
) -> None:
    """Refuse a split with a leak, or warn if `allow_leak` is set.

    Parameters
    ----------
    leaks
        From :func:`check_leaks`.
    split
        Name of the split, for the message.
    advice
        Returns what to do instead.
    console
        Receives the warning.

    Raises
    ------
    UsageError
        If the split is not disjoint and no leak is allowed.
    """
    if leaks.is_disjoint:
        return
    if not allow_leak:
        raise UsageError(
            f"split {split} is {leaks.stamp}: results on it say nothing about patients the network has not seen. "
            f"{advice()}"
        )
    console.warn(f"{leaks.stamp}: training as --allow-leak allows")


def is_disjoint_stamp(stamp: str) -> bool:
    """Return whether a stamp is that of a disjoint split."""
    return stamp.startswith(DISJOINT_STAMP)


def check_leaks(
    codes: SplitCodes,
    table: SampleTable,
    subjects: SubjectsFound | None = None,
    start: SeenBefore = NOTHING_SEEN_BEFORE,
) -> LeakCheck:
    """Count what is on two sides of a split.

    Parameters
    ----------
    codes
        Of shape (n,): position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED.
    table
        The n samples.
    subjects
        How the source's subjects were read; None if unknown.
    start
        Samples of the split that the start weights of a training have seen.
    """
    used = codes != UNUSED
    pixels, shown = digest_codes(table.pixel_digests), shown_codes(table)
    known = used & (table.subjects != b"")
    labelled = table.labels != UNKNOWN_LABEL
    # In all samples, as in the audit: what a subject is does not depend on the split.
    owned = (table.subjects != b"") & labelled
    is_confirmed = subjects is not None and subjects.is_confirmed
    doubtful = 0 if is_confirmed else _num_shared(text_codes(table.subjects[owned]), table.labels[owned])
    return LeakCheck(
        shared_subjects=_num_shared(text_codes(table.subjects[known]), codes[known]),
        shared_images=_num_shared(pixels[used], codes[used]),
        unknown_subjects=int((used & (table.subjects == b"")).sum()),
        doubtful_subjects=doubtful,
        contradictory_images=_num_shared(pixels[labelled], table.labels[labelled]),
        alike_subjects=0 if is_confirmed else len(alike_subjects(decode_texts(table.subjects))),
        near_images=_num_nearly_shared(shown[used], pixels[used], codes[used]),
        near_contradictions=_num_nearly_shared(shown[labelled], pixels[labelled], table.labels[labelled]),
        subjects_from="" if subjects is None else "; ".join(subjects.sources),
        start_subjects=start.subjects,
        start_images=start.images,
        unknown_start=int(not start.is_known),
        start_namesakes=start.namesakes,
    )


def _num_shared(keys: NDArray[np.int64], codes: NDArray[np.int8] | NDArray[np.int16]) -> int:
    """Number of keys that occur with more than one code; both count from 0."""
    occurs = np.zeros((int(codes.max(initial=0)) + 1, int(keys.max(initial=0)) + 1), np.bool_)
    occurs[codes, keys] = True
    return int((occurs.sum(axis=0) > 1).sum())


def _num_nearly_shared(
    shown: NDArray[np.int64], pixels: NDArray[np.int64], codes: NDArray[np.int8] | NDArray[np.int16]
) -> int:
    """Number of groups that occur with more than one code and hold different images."""
    _, firsts = np.unique(np.stack((shown, pixels), axis=1), axis=0, return_index=True)
    of_several = np.bincount(shown[firsts])[shown] > 1
    return _num_shared(shown[of_several], codes[of_several])


ANOTHER_SOURCE_STAMP = "another source (subjects of the two cannot be compared by name)"
NOT_COMPARED_STAMP = "not compared (the training images of the run are not known)"


class OwnedImage(NamedTuple):
    """The compared facts of an image: digest of its decoded frame ("" if unknown), subject, label."""

    digest: str
    subject: str
    label: int


@dataclass(frozen=True, slots=True)
class OutsideCheck(LeakCheck):
    """Overlap of an outside set with the images that a network was trained on.

    Attributes
    ----------
    is_compared
        Whether the pixels of all images that the network was trained on are known.
    is_comparable
        Whether subjects of the set and the run are the same people if and only if their names are equal; names of two
        hospitals are not comparable.
    """

    is_compared: bool = False
    is_comparable: bool = False

    @property
    def is_disjoint(self) -> bool:
        """Whether results on the set are results on unseen patients."""
        return super(OutsideCheck, self).is_disjoint and self.is_compared and self.is_comparable

    @property
    def stamp(self) -> str:
        """The text on every table, figure and page of this set."""
        if self.is_disjoint or not super(OutsideCheck, self).is_disjoint:
            return super(OutsideCheck, self).stamp
        return ANOTHER_SOURCE_STAMP if self.is_compared else NOT_COMPARED_STAMP


def check_outside(
    outside: Sequence[OwnedImage],
    trained_on: Sequence[OwnedImage],
    *,
    outside_subjects_from: Sequence[str],
    trained_subjects_from: Sequence[str],
    is_confirmed: bool = False,
) -> OutsideCheck:
    """Compare an outside set with the images that a network was trained on.

    Parameters
    ----------
    outside
        The images of the set.
    trained_on
        Those of the run's training and validation parts.
    outside_subjects_from, trained_subjects_from
        What the subjects of either were read from; empty if unknown.
    is_confirmed
        Whether the user confirmed the subjects of the set.

    Returns
    -------
    OutsideCheck
        ``shared_images`` counts different pictures, ``shared_subjects`` names, ``unknown_subjects`` images of either.
    """
    mine, theirs = ({image.subject for image in images} - {""} for images in (outside, trained_on))
    digests = {image.digest for image in outside} & {image.digest for image in trained_on} - {""}
    both = (*outside, *trained_on)
    # Groups in the run only do not concern the set.
    alike = [group for group in alike_subjects(mine | theirs) if not set(group) <= theirs]
    return OutsideCheck(
        shared_subjects=len(mine & theirs),
        shared_images=len(digests),
        unknown_subjects=sum(not image.subject for image in both),
        doubtful_subjects=0 if is_confirmed else _num_contradictory((image.subject, image.label) for image in both),
        contradictory_images=_num_contradictory((image.digest, image.label) for image in both),
        alike_subjects=0 if is_confirmed else len(alike),
        subjects_from="; ".join(outside_subjects_from),
        is_compared=bool(trained_on) and all(image.digest for image in trained_on),
        is_comparable=set(outside_subjects_from) == set(trained_subjects_from) == {CNMC_NAMING},
    )


def _num_contradictory(pairs: Iterable[tuple[str, int]]) -> int:
    """Number of keys with several labels."""
    known = {(key, label) for key, label in pairs if key and label != UNKNOWN_LABEL}
    return sum(count > 1 for count in Counter(key for key, _ in known).values())
