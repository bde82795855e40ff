"""Pairs of images: which are identical, which look alike, and what lies between the two of a pair.

Counting: k identical images are one group and k(k-1)/2 pairs, so a pair is always two images, and numbers of pairs can
be split by what the two have in common.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.samples.record import NO_FOLD

LARGEST_GROUP = 1000
"""Of a larger group only the pairs with its first image are formed: nobody reads half a million of them."""


@dataclass(frozen=True, slots=True)
class AuditPair:
    """Two images, by number; those that only look alike have a distance (bits of 64) and a correlation."""

    first: int
    second: int
    distance: int | None = None
    correlation: float | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """A division of the images that a training could use, such as the given splits or the folds.

    Attributes
    ----------
    key, name
        What kind of division it is: in one word for scripts, and in the plural for people.
    of_image
        Side of each image; empty for one that is on none.
    """

    key: str
    name: str
    of_image: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The sides that hold images."""
        return sorted({side for side in self.of_image if side})


def brought_sides(images: Sequence[AuditImage], arguments: Sequence[str]) -> list[Sides]:
    """Divisions that the images brought: given splits, folds, and what was given as several arguments.

    A division into one side is none, and is left out.
    """
    candidates = [
        Sides("split", "given splits", tuple(image.split for image in images)),
        Sides("fold", "folds", tuple(f"fold {image.fold}" if image.fold != NO_FOLD else "" for image in images)),
        Sides("argument", "arguments", tuple(arguments[image.argument] for image in images)),
    ]
    return [sides for sides in candidates if len(sides.names) > 1]


def identical_groups(images: Sequence[AuditImage]) -> list[tuple[int, ...]]:
    """Numbers of identical images: equal pixels, or equal bytes where that is all that is known.

    Returns
    -------
    list of tuple of int
        Groups of two and more, each ascending, in the order of their first images.
    """
    parents = list(range(len(images)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    first_with: dict[bytes, int] = {}
    for number, image in enumerate(images):
        for key in image.content_keys:
            a, b = root(number), root(first_with.setdefault(key, number))
            parents[max(a, b)] = min(a, b)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(len(images)):
        members[root(number)].append(number)
    return [tuple(group) for group in members.values() if len(group) > 1]


def group_pairs(groups: Iterable[tuple[int, ...]]) -> list[AuditPair]:
    """All pairs within each group; see :data:`LARGEST_GROUP`."""
    pairs: list[AuditPair] = []
    for group in groups:
        if len(group) > LARGEST_GROUP:
            pairs.extend(AuditPair(group[0], other) for other in group[1:])
        else:
            pairs.extend(AuditPair(a, b) for a, b in combinations(group, 2))
    return pairs


def pairs_between(pairs: Iterable[AuditPair], values: Sequence[str]) -> list[AuditPair]:
    """Pairs whose two images have different values; a pair with an empty value is not one of them."""
    return [p for p in pairs if values[p.first] and values[p.second] and values[p.first] != values[p.second]]


def count_value_pairs(pairs: Iterable[AuditPair], values: Sequence[str]) -> dict[tuple[str, str], int]:
    """How many pairs lie between which two values (or within one), most frequent first; empty values are left out."""
    counts = Counter(
        (min(values[p.first], values[p.second]), max(values[p.first], values[p.second]))
        for p in pairs
        if values[p.first] and values[p.second]
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def shared_subjects(images: Sequence[AuditImage], sides: Sides) -> dict[str, dict[str, int]]:
    """Subjects with images on several sides: subject -> side -> number of images, in natural order of the subjects."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image, side in zip(images, sides.of_image, strict=True):
        if image.subject and side:
            counts[image.subject][side] += 1
    shared = [subject for subject, per_side in counts.items() if len(per_side) > 1]
    return {subject: dict(sorted(counts[subject].items())) for subject in sorted(shared, key=subject_order)}


def subject_order(subject: str) -> tuple[int, str]:
    """Sort key of subjects: ``2`` before ``10``, ``H2`` before ``H10``."""
    return len(subject), subject
