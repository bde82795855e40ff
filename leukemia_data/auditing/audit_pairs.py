"""Pairs and groups of images: identical, near-identical, alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from leukemia_data.auditing.audit_image import VIEWS, AuditImage, CellPrint, Check, counted, oriented
from leukemia_data.errors import listed
from leukemia_data.records.near_looks import LOOK_VALUES, joined, look_correlations, near_groups
from leukemia_data.records.record import NO_FOLD

LARGEST_GROUP = 1000
"""Larger groups only yield pairs with their first image, to avoid half a million pairs."""


@dataclass(frozen=True, slots=True)
class AuditPair:
    """Two images by index; similar ones have a distance (bits of 64) and a correlation."""

    first: int
    second: int
    distance: int | None = None
    correlation: float | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """A division of the images that a training might use, such as the given splits or the folds.

    Attributes
    ----------
    key, name
        Kind of division: one word for scripts, and a plural for text.
    of_image
        Side of each image; empty for none.
    """

    key: str
    name: str
    of_image: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The non-empty sides."""
        return sorted({side for side in self.of_image if side})


def brought_sides(images: Sequence[AuditImage], arguments: Sequence[str]) -> list[Sides]:
    """Return divisions by given splits, by folds and by arguments.

    Divisions with a single side are left out.
    """
    candidates = [
        Sides("split", "given splits", tuple(image.split for image in images)),
        Sides("fold", "folds", tuple(f"fold {image.fold}" if image.fold != NO_FOLD else "" for image in images)),
        Sides("argument", "arguments", tuple(arguments[image.argument] for image in images)),
    ]
    return [sides for sides in candidates if len(sides.names) > 1]


def identical_groups(images: Sequence[AuditImage]) -> list[tuple[int, ...]]:
    """Return groups of indices of identical images: equal pixels, or equal bytes if pixels are unknown.

    Returns
    -------
    list of tuple of int
        Groups of at least two, each ascending, ordered by first image.
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
    """Return all pairs within each group; see :data:`LARGEST_GROUP`."""
    pairs: list[AuditPair] = []
    for group in groups:
        if len(group) > LARGEST_GROUP:
            pairs.extend(AuditPair(group[0], other) for other in group[1:])
        else:
            pairs.extend(AuditPair(a, b) for a, b in combinations(group, 2))
    return pairs


def pairs_between(pairs: Iterable[AuditPair], values: Sequence[str]) -> list[AuditPair]:
    """Return pairs of images with different, non-empty values."""
    return [p for p in pairs if values[p.first] and values[p.second] and values[p.first] != values[p.second]]


def count_value_pairs(pairs: Iterable[AuditPair], values: Sequence[str]) -> dict[tuple[str, str], int]:
    """Count pairs by their two values, most frequent first, without empty values."""
    counts = Counter(
        (min(values[p.first], values[p.second]), max(values[p.first], values[p.second]))
        for p in pairs
        if values[p.first] and values[p.second]
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def shared_subjects(images: Sequence[AuditImage], sides: Sides) -> dict[str, dict[str, int]]:
    """Return subjects on several sides: subject -> side -> number of images, in natural order."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for image, side in zip(images, sides.of_image, strict=True):
        if image.subject and side:
            counts[image.subject][side] += 1
    shared = [subject for subject, per_side in counts.items() if len(per_side) > 1]
    return {subject: dict(sorted(counts[subject].items())) for subject in sorted(shared, key=subject_order)}


def subject_order(subject: str) -> tuple[int, str]:
    """Return a natural sort key: ``2`` before ``10``, ``H2`` before ``H10``."""
    return len(subject), subject


MAX_DISTANCE = 10
MIN_CORRELATION = 0.85
MAX_CELLS = 100_000
"""Maximal number of cells to compare: the time is quadratic."""
_BLOCK_ENTRIES = 1 << 20
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two similar cells.

    Attributes
    ----------
    first, second
        Positions in the sequence of prints, ``first < second``.
    distance
        Hamming distance of their 64-bit hashes in the best orientation.
    correlation
        Pearson correlation of the thumbnails in that orientation.
    view
        Which of :data:`~leukemia_data.auditing.audit_image.VIEWS` of `second` looks like `first`.
    """

    first: int
    second: int
    distance: int
    correlation: float
    view: int


def find_near_pairs(
    prints: Sequence[CellPrint],
    *,
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], object] | None = None,
) -> list[NearPair]:
    """Find the pairs of similar cells, including identical ones.

    Parameters
    ----------
    prints
        Prints of n cells. Extra memory stays below about 100 MB; time is quadratic in n (10,000 cells take seconds,
        :data:`MAX_CELLS` minutes).
    max_distance
        Maximal number of differing bits.
    progress
        Called with the number of cells compared since the last call.

    Returns
    -------
    list of NearPair
        In ascending order of (first, second).
    """
    if len(prints) < 2:
        return []
    hashes_N8 = np.stack([one.hashes for one in prints])
    thumbnails_NPP = np.stack([one.thumbnail for one in prints])
    found: list[NearPair] = []
    rows = max(_BLOCK_ENTRIES // len(prints), 1)
    for start in range(0, len(prints), rows):
        block = slice(start, min(start + rows, len(prints)))
        found.extend(_confirmed(*_candidates(hashes_N8, block, max_distance), thumbnails_NPP))
        if progress is not None:
            progress(block.stop - start)
    return found


def _candidates(
    hashes_N8: NDArray[np.uint64], block: slice, max_distance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Pairs (first in the block, second after it) within the distance: first, second, distance and view."""
    firsts_B1 = hashes_N8[block, :1]
    later_M8 = np.ascontiguousarray(hashes_N8[block.start :].T)
    best_BM = np.full((len(firsts_B1), later_M8.shape[1]), 255, np.uint8)
    view_BM = np.zeros(best_BM.shape, np.uint8)
    for view, seconds_M in enumerate(later_M8):
        distance_BM = np.bitwise_count(firsts_B1 ^ seconds_M)
        is_better = distance_BM < best_BM
        if is_better.any():
            view_BM[is_better] = view
            np.minimum(best_BM, distance_BM, out=best_BM)
    first, second = np.nonzero(np.triu(best_BM <= max_distance, k=1))
    return first + block.start, second + block.start, best_BM[first, second], view_BM[first, second].astype(np.int64)


def _confirmed(
    firsts: NDArray[np.int64],
    seconds: NDArray[np.int64],
    distances: NDArray[np.uint8],
    views: NDArray[np.int64],
    thumbnails_NPP: NDArray[np.int8],
) -> list[NearPair]:
    correlations = np.zeros(len(firsts))
    for view in range(len(VIEWS)):
        members = np.flatnonzero(views == view)
        for start in range(0, len(members), _PAIRS_AT_ONCE):
            some = members[start : start + _PAIRS_AT_ONCE]
            turned = oriented(thumbnails_NPP[seconds[some]], view)
            correlations[some] = _correlations(thumbnails_NPP[firsts[some]], turned)
    return [
        NearPair(int(firsts[k]), int(seconds[k]), int(distances[k]), float(correlations[k]), int(views[k]))
        for k in np.flatnonzero(correlations >= MIN_CORRELATION)
    ]


def _correlations(first_NPP: NDArray[np.generic], second_NPP: NDArray[np.generic]) -> NDArray[np.float64]:
    """Pearson's correlation of each image with its partner, shape (N,)."""
    a = first_NPP.reshape(len(first_NPP), -1).astype(np.float32)
    b = second_NPP.reshape(len(second_NPP), -1).astype(np.float32)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("nk,nk->n", a, b, dtype=np.float64)
    correlations: NDArray[np.float64] = products / np.maximum(norms, np.finfo(np.float32).tiny)
    return correlations


@dataclass(frozen=True, slots=True)
class NearGroup:
    """Ascending indices of images with the same content, and each look's correlation with the first one's."""

    images: tuple[int, ...]
    correlations: tuple[float, ...]

    def values(self, of_image: Sequence[str]) -> list[str]:
        """Return the distinct non-empty values of the images."""
        return sorted({of_image[number] for number in self.images} - {""}, key=subject_order)

    @property
    def pairs(self) -> list[AuditPair]:
        """Return pairs of the first image with each other one."""
        first, *others = self.images
        return [AuditPair(first, other, None, r) for other, r in zip(others, self.correlations, strict=True)]


def near_identical_groups(images: Sequence[AuditImage], identical: Sequence[tuple[int, ...]]) -> list[NearGroup]:
    """Find the groups of near-identical images.

    Parameters
    ----------
    images
        Images without a look are in a group only if identical to one in it.
    identical
        Groups of ascending indices of identical images.

    Returns
    -------
    list of NearGroup
        Ordered by first image.
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
    correlations = [
        look_correlations(np.repeat(looks[group[:1]], len(group) - 1, axis=0), looks[group[1:]]) for group in several
    ]
    return [NearGroup(tuple(group), tuple(found.tolist())) for group, found in zip(several, correlations, strict=True)]


def near_identical_checks(
    images: Sequence[AuditImage], sides: Sequence[Sides], groups: Sequence[NearGroup]
) -> Iterator[Check]:
    """Count groups, and those across subjects, classes and sides."""
    if not any(image.look for image in images):
        yield Check("near_identical", "unchecked", None, "near-identical images: their looks are not known")
        return
    num_images = sum(len(group.images) for group in groups)
    text = "groups of near-identical images"
    if groups:
        together = f"of together {num_images:,} images"
        text += f", {together}: copies turned, mirrored, resized or stored anew; count originals, not files"
    yield counted("near_identical", "LOOK", len(groups), text)
    if not groups:
        return
    people = Counter(
        " = ".join(names) for group in groups if len(names := group.values([image.subject for image in images])) > 1
    )
    named = f": {listed((f'{who} ({count})' for who, count in people.most_common()), most=8)}"
    yield counted("near_identical_subjects", "LOOK", people.total(), f"  of two subjects{named if people else ''}")
    conflicts = _num_across(groups, [image.class_name for image in images])
    yield counted("near_identical_labels", "WRONG", conflicts, "  with two labels")
    for division in sides:
        count = _num_across(groups, division.of_image)
        yield counted(f"near_identical_{division.key}", "LEAK", count, f"  on two sides of the {division.name}")


def _num_across(groups: Sequence[NearGroup], of_image: Sequence[str]) -> int:
    return sum(len(group.values(of_image)) > 1 for group in groups)
