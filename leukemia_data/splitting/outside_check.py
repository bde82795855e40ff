"""What an outside set of images has in common with those that a network has learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.sources.alike_subjects import alike_subjects
from leukemia_data.sources.reading import CNMC_NAMING
from leukemia_data.splitting.leaks import LeakCheck

ANOTHER_SOURCE_STAMP = "another source (subjects of the two cannot be compared by name)"
NOT_COMPARED_STAMP = "not compared (the training images of the run are not known)"


class OwnedImage(NamedTuple):
    """What is compared of an image: the digest of its decoded frame ("" where unknown), its subject, its label."""

    digest: str
    subject: str
    label: int


@dataclass(frozen=True, slots=True)
class OutsideCheck(LeakCheck):
    """What stands in an outside set and among the images that a network has learnt from.

    Attributes
    ----------
    is_compared
        Whether the pixels of all images that the network has learnt from are known.
    is_comparable
        Whether equal names of subjects mean the same people, and different names different ones, in the set and the
        run. Names of two hospitals do not.
    """

    is_compared: bool = False
    is_comparable: bool = False

    @property
    def is_disjoint(self) -> bool:
        """Whether results on the set may be called results on unseen patients."""
        return super(OutsideCheck, self).is_disjoint and self.is_compared and self.is_comparable

    @property
    def stamp(self) -> str:
        """The words that every table, figure and page of this set carries."""
        if self.is_disjoint or not super(OutsideCheck, self).is_disjoint:
            return super(OutsideCheck, self).stamp
        return ANOTHER_SOURCE_STAMP if self.is_compared else NOT_COMPARED_STAMP


def check_outside(
    judged: Sequence[OwnedImage],
    learnt: Sequence[OwnedImage],
    *,
    judged_subjects_from: Sequence[str],
    learnt_subjects_from: Sequence[str],
    is_confirmed: bool = False,
) -> OutsideCheck:
    """Compare an outside set with what a network has learnt from.

    Parameters
    ----------
    judged
        The images of the set.
    learnt
        Those of the run's training and validation parts.
    judged_subjects_from, learnt_subjects_from
        What the subjects of either were read from; empty where that is not known.
    is_confirmed
        Whether the user has said what a subject of the set is.

    Returns
    -------
    OutsideCheck
        ``shared_images`` counts different pictures, ``shared_subjects`` names, ``unknown_subjects`` images of either.
    """
    mine, theirs = _subjects(judged), _subjects(learnt)
    digests = {image.digest for image in judged} & {image.digest for image in learnt} - {""}
    both = (*judged, *learnt)
    # Groups of the run alone are the run's own affair.
    alike = [group for group in alike_subjects(mine | theirs) if not set(group) <= theirs]
    return OutsideCheck(
        shared_subjects=len(mine & theirs),
        shared_images=len(digests),
        unknown_subjects=sum(not image.subject for image in both),
        doubtful_subjects=0 if is_confirmed else _num_contradictory((image.subject, image.label) for image in both),
        contradictory_images=_num_contradictory((image.digest, image.label) for image in both),
        alike_subjects=0 if is_confirmed else len(alike),
        subjects_from="; ".join(judged_subjects_from),
        is_compared=bool(learnt) and all(image.digest for image in learnt),
        is_comparable=set(judged_subjects_from) == set(learnt_subjects_from) == {CNMC_NAMING},
    )


def _subjects(images: Iterable[OwnedImage]) -> set[str]:
    return {image.subject for image in images} - {""}


def _num_contradictory(pairs: Iterable[tuple[str, int]]) -> int:
    """How many keys occur with several labels."""
    labels_of: dict[str, set[int]] = {}
    for key, label in pairs:
        if key and label != UNKNOWN_LABEL:
            labels_of.setdefault(key, set()).add(label)
    return sum(len(labels) > 1 for labels in labels_of.values())
