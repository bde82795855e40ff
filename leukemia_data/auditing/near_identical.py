"""Groups of near-identical images, and what lies between the images of a group: images in, groups and verdicts out.

What is near-identical is decided as for a training's split (:mod:`leukemia_data.samples.near_looks`), and a group here
is what ``near_images`` of :class:`~leukemia_data.splitting.leaks.LeakCheck` counts: near-identical images and those
identical to any of them, if they are not all identical.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from leukemia_data.auditing.audit_check import Check, Verdict
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import AuditPair, Sides, subject_order
from leukemia_data.errors import listed
from leukemia_data.samples.near_looks import LOOK_VALUES, joined, look_correlations, near_groups

_MOST_LISTED = 8


@dataclass(frozen=True, slots=True)
class NearGroup:
    """Images that show the same, by number and ascending; of each but the first, how its look correlates with that."""

    images: tuple[int, ...]
    correlations: tuple[float, ...]

    def values(self, of_image: Sequence[str]) -> list[str]:
        """The different values that the images have, empty ones left out."""
        return sorted({of_image[number] for number in self.images} - {""}, key=subject_order)

    @property
    def pairs(self) -> list[AuditPair]:
        """The first image with each other one."""
        first, *others = self.images
        return [AuditPair(first, other, None, r) for other, r in zip(others, self.correlations, strict=True)]


def near_identical_groups(images: Sequence[AuditImage], identical: Sequence[tuple[int, ...]]) -> list[NearGroup]:
    """Find the groups of near-identical images.

    Parameters
    ----------
    images
        One whose look is not known is in a group only if it is identical to one that is.
    identical
        Groups of identical images, by number and ascending.

    Returns
    -------
    list of NearGroup
        In the order of their first images.
    """
    looks = np.zeros((len(images), LOOK_VALUES), np.int8)
    for number, image in enumerate(images):
        if image.look:
            looks[number] = np.frombuffer(image.look, np.int8)
    pixels = np.arange(len(images), dtype=np.int64)
    for group in identical:
        pixels[list(group)] = group[0]
    members: defaultdict[int, list[int]] = defaultdict(list)
    for number, code in enumerate(joined(pixels, np.arange(len(images)), near_groups(looks)).tolist()):
        members[code].append(number)
    several = [group for group in members.values() if len(set(pixels[group].tolist())) > 1]
    return [NearGroup(tuple(group), tuple(_with_first(looks[group]))) for group in several]


def _with_first(looks_K64: np.ndarray) -> list[float]:
    others: list[float] = look_correlations(
        np.repeat(looks_K64[:1], len(looks_K64) - 1, axis=0), looks_K64[1:]
    ).tolist()
    return others


def near_identical_checks(
    images: Sequence[AuditImage], sides: Sequence[Sides], groups: Sequence[NearGroup]
) -> Iterator[Check]:
    """Say how many groups there are, and how many lie across subjects, classes and sides."""
    if not any(image.look for image in images):
        yield Check("near_identical", "unchecked", None, "near-identical images: their looks are not known")
        return
    num_images = sum(len(group.images) for group in groups)
    text = "groups of near-identical images"
    if groups:
        together = f"of together {num_images:,} images"
        text += f", {together}: copies turned, mirrored, resized or stored anew; count originals, not files"
    yield Check("near_identical", "LOOK" if groups else "ok", len(groups), text)
    if not groups:
        return
    people = Counter(
        " = ".join(names) for group in groups if len(names := group.values([image.subject for image in images])) > 1
    )
    named = f": {listed((f'{who} ({count})' for who, count in people.most_common()), most=_MOST_LISTED)}"
    yield _across("near_identical_subjects", "LOOK", people.total(), f"  of two subjects{named if people else ''}")
    conflicts = _num_across(groups, [image.class_name for image in images])
    yield _across("near_identical_labels", "WRONG", conflicts, "  with two labels")
    for division in sides:
        count = _num_across(groups, division.of_image)
        yield _across(f"near_identical_{division.key}", "LEAK", count, f"  on two sides of the {division.name}")


def _num_across(groups: Sequence[NearGroup], of_image: Sequence[str]) -> int:
    return sum(len(group.values(of_image)) > 1 for group in groups)


def _across(key: str, verdict: Verdict, count: int, text: str) -> Check:
    return Check(key, verdict if count else "ok", count, text)
