"""Which samples train, which validate, which test: pure functions of the sample table and a seed.

The subject is the unit. ``subject`` and ``fold:K/N`` never put cells of one person on two sides, and treat people who
share pixel-identical images as one (the published set has 99 such pairs across patient ids). ``image`` splits by image
and is patient-mixed; ``given`` takes what the source brought. Whatever was asked for, :func:`check_leaks` looks at the
result and says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.record import UNKNOWN_LABEL
from leukemia_data.samples import SampleTable, decode_texts

SPLIT_NAMES = ("train", "valid", "test")
UNUSED = len(SPLIT_NAMES)
"""Code of samples that are in no split: those without a label, unless the source gave them one."""
DISJOINT_STAMP = "subject-disjoint"
FRACTIONS = (0.75, 0.15, 0.10)
_FOLD_SPEC = re.compile(r"fold:(\d+)/(\d+)")
_MAX_DRAWS = 200
_DRAW_BUDGET = 400_000

SplitCodes = NDArray[np.int8]
"""Per sample: position in SPLIT_NAMES, or UNUSED."""


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """A split as the user names it: ``given``, ``subject``, ``image`` or ``fold:K/N`` (K from 1)."""

    kind: Literal["given", "subject", "image", "fold"]
    fold: int = 0
    num_folds: int = 0

    def __str__(self) -> str:
        return f"fold:{self.fold}/{self.num_folds}" if self.kind == "fold" else self.kind


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """What stands on two sides of a split.

    Attributes
    ----------
    shared_subjects
        Subjects with samples in more than one split.
    shared_images
        Groups of pixel-identical images in more than one split.
    unknown_subjects
        Samples in a split whose subject nothing tells.
    """

    shared_subjects: int
    shared_images: int
    unknown_subjects: int

    @property
    def is_disjoint(self) -> bool:
        """Whether results on this split may be called results on unseen patients."""
        return not (self.shared_subjects or self.shared_images or self.unknown_subjects)

    @property
    def stamp(self) -> str:
        """The words that every table, figure and page of this split carries."""
        if self.is_disjoint:
            return DISJOINT_STAMP
        found = (
            (self.shared_subjects, "subject on both sides", "subjects on both sides"),
            (self.shared_images, "identical image on both sides", "identical images on both sides"),
            (self.unknown_subjects, "image of an unknown subject", "images of unknown subjects"),
        )
        reasons = [f"{count} {one if count == 1 else many}" for count, one, many in found if count]
        return f"PATIENT-MIXED ({', '.join(reasons)})"


def parse_split(text: str) -> SplitSpec:
    """Read a split's name.

    Raises
    ------
    UsageError
        If it is none of ``given``, ``subject``, ``image``, ``fold:K/N`` with 1 <= K <= N and N >= 2.
    """
    match text:
        case "given" | "subject" | "image":
            return SplitSpec(text)
    fold = _FOLD_SPEC.fullmatch(text)
    if fold is None:
        raise UsageError(f"unknown split {text!r}: use subject, given, image or fold:K/N (such as fold:1/5)")
    number, num_folds = int(fold.group(1)), int(fold.group(2))
    if not (num_folds >= 2 and 1 <= number <= num_folds):
        raise UsageError(f"split {text!r}: folds are counted from 1 to N, and there are at least 2")
    return SplitSpec("fold", number, num_folds)


def assign_split(spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str] = ()) -> SplitCodes:
    """Put every sample into a split.

    Parameters
    ----------
    spec
        What kind of split.
    table
        All samples of a cache.
    seed
        Decides among equally good splits.
    class_names
        For messages; without them labels are shown.

    Returns
    -------
    ndarray of shape (n,), int8
        Position in :data:`SPLIT_NAMES`, or :data:`UNUSED`. ``subject`` and ``image`` aim at 75 / 15 / 10 % of each
        class's images; ``fold:K/N`` validates on part K of N and trains on the rest.

    Raises
    ------
    UsageError
        If the samples cannot be split so: unknown subjects, no given split, fewer subjects of a class than parts.
    """
    if spec.kind == "given":
        return _given_codes(table)
    codes = np.full(len(table), UNUSED, np.int8)
    labelled = np.flatnonzero(table.labels != UNKNOWN_LABEL)
    if len(labelled) == 0:
        raise UsageError(f"split {spec}: no image of this cache has a label")
    known = table.take(labelled)
    if spec.kind == "image":
        groups = np.arange(len(known))
    else:
        _require_subjects(spec, known)
        groups = linked_groups(known)
    groups = _numbered_by_content(groups, known)
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, len(SPLIT_NAMES)], np.uint64)))
    names = _PartNames(spec, tuple(class_names))
    if spec.kind == "fold":
        parts = _assign_groups(groups, known.labels, [1 / spec.num_folds] * spec.num_folds, generator, names)
        codes[labelled] = np.where(parts == spec.fold - 1, SPLIT_NAMES.index("valid"), SPLIT_NAMES.index("train"))
    else:
        codes[labelled] = _assign_groups(groups, known.labels, FRACTIONS, generator, names)
    return codes


def linked_groups(table: SampleTable) -> NDArray[np.int64]:
    """Number the groups of samples that must stay together: same subject, or same pixels, or linked by others.

    Returns
    -------
    ndarray of shape (n,), int64
        Group of each sample, numbered from 0 in the order of the samples.
    """
    parents: dict[tuple[str, bytes], tuple[str, bytes]] = {}

    def find(node: tuple[str, bytes]) -> tuple[str, bytes]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = [
        (("subject", subject) if subject else ("sample", str(n).encode()), ("pixels", digest.tobytes()))
        for n, (subject, digest) in enumerate(zip(table.subjects.tolist(), table.pixel_digests, strict=True))
    ]
    for owner, pixels in nodes:
        parents[find(owner)] = find(pixels)
    numbers: dict[tuple[str, bytes], int] = {}
    return np.array([numbers.setdefault(find(owner), len(numbers)) for owner, _ in nodes], np.int64)


def _numbered_by_content(groups: NDArray[np.int64], table: SampleTable) -> NDArray[np.int64]:
    """Number groups by their smallest pixel digest, so that a split depends on the images, not on their file names."""
    digests = np.ascontiguousarray(table.pixel_digests).view(f"S{table.pixel_digests.shape[1]}").ravel()
    by_digest = np.argsort(digests, kind="stable")
    _, first_of_group, group_of = np.unique(groups[by_digest], return_index=True, return_inverse=True)
    number_of_group = np.argsort(np.argsort(first_of_group))
    numbered = np.empty_like(groups)
    numbered[by_digest] = number_of_group[group_of]
    return numbered


def check_leaks(codes: SplitCodes, table: SampleTable) -> LeakCheck:
    """Count what stands on two sides of a split, whichever way it was made."""
    used = codes != UNUSED
    known = used & (table.subjects != b"")
    digests = [digest.tobytes() for digest in table.pixel_digests[used]]
    return LeakCheck(
        shared_subjects=_num_shared(table.subjects[known].tolist(), codes[known]),
        shared_images=_num_shared(digests, codes[used]),
        unknown_subjects=int((used & (table.subjects == b"")).sum()),
    )


def split_numbers(codes: SplitCodes, name: str) -> NDArray[np.int64]:
    """Sample numbers of one split, ascending; ``all`` means every sample.

    Raises
    ------
    UsageError
        If there is no split of that name.
    """
    if name == "all":
        return np.arange(len(codes), dtype=np.int64)
    if name not in SPLIT_NAMES:
        raise UsageError(f"unknown part {name!r}: use {', '.join(SPLIT_NAMES)} or all")
    return np.flatnonzero(codes == SPLIT_NAMES.index(name)).astype(np.int64)


def _given_codes(table: SampleTable) -> SplitCodes:
    names = decode_texts(table.splits)
    codes = np.array([SPLIT_NAMES.index(name) if name in SPLIT_NAMES else UNUSED for name in names], np.int8)
    unlabelled = (codes < SPLIT_NAMES.index("test")) & (table.labels == UNKNOWN_LABEL)
    codes[unlabelled] = UNUSED
    missing = [name for n, name in enumerate(SPLIT_NAMES[:2]) if not (codes == n).any()]
    if missing:
        raise UsageError(
            f"split given: the source brought no {' and no '.join(missing)} images with a label; "
            "use --split subject, fold:K/N or image"
        )
    return codes


def _require_subjects(spec: SplitSpec, table: SampleTable) -> None:
    num_unknown = int((table.subjects == b"").sum())
    if num_unknown:
        raise UsageError(
            f"split {spec} needs to know whose cell each image is; {num_unknown} of {len(table)} images do not say: "
            "use C-NMC names, a column 'subject' in the table, or --split given or image (both are then patient-mixed)"
        )


def _num_shared(keys: Sequence[bytes], codes: SplitCodes) -> int:
    """Number of keys that occur with more than one code."""
    first: dict[bytes, int] = {}
    shared = {key for key, code in zip(keys, codes.tolist(), strict=True) if first.setdefault(key, code) != code}
    return len(shared)


@dataclass(frozen=True, slots=True)
class _PartNames:
    """What messages about a split call things."""

    spec: SplitSpec
    class_names: tuple[str, ...]

    def too_few(self, label: int, num_groups: int, num_parts: int) -> str:
        name = repr(self.class_names[label]) if label < len(self.class_names) else str(label)
        unit = "images" if self.spec.kind == "image" else "independent subjects"
        return f"split {self.spec}: class {name} has {num_groups} {unit}, too few for {num_parts} parts"


def _assign_groups(
    groups: NDArray[np.int64],
    labels: NDArray[np.int16],
    fractions: Sequence[float],
    generator: np.random.Generator,
    names: _PartNames,
) -> NDArray[np.int8]:
    """Distribute whole groups over parts, class by class, close to the wanted shares of images and of groups."""
    num_groups = int(groups.max()) + 1
    class_of_group = _majority_labels(groups, labels, num_groups)
    sizes = np.bincount(groups, minlength=num_groups)
    part_of_group = np.zeros(num_groups, np.int8)
    for label in np.unique(class_of_group):
        members = np.flatnonzero(class_of_group == label)
        if len(members) < len(fractions):
            raise UsageError(names.too_few(int(label), len(members), len(fractions)))
        part_of_group[members] = _best_draw(sizes[members], np.array(fractions), generator)
    return part_of_group[groups]


def _majority_labels(groups: NDArray[np.int64], labels: NDArray[np.int16], num_groups: int) -> NDArray[np.int64]:
    counts = np.zeros((num_groups, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (groups, labels), 1)
    majority: NDArray[np.int64] = counts.argmax(axis=1)
    return majority


def _best_draw(
    sizes: NDArray[np.int64], fractions: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int8]:
    """Try random orders of the groups and keep the assignment closest to the wanted shares."""
    num_draws = int(np.clip(_DRAW_BUDGET // len(sizes), 1, _MAX_DRAWS))
    best_cost, best = np.inf, np.zeros(len(sizes), np.int8)
    for _ in range(num_draws):
        parts = _fill_parts(sizes, fractions, generator.permutation(len(sizes)))
        image_shares = np.bincount(parts, sizes, len(fractions)) / sizes.sum()
        group_shares = np.bincount(parts, minlength=len(fractions)) / len(sizes)
        cost = float(np.abs(image_shares - fractions).sum() + np.abs(group_shares - fractions).sum())
        if cost < best_cost:
            best_cost, best = cost, parts
    return best


def _fill_parts(sizes: NDArray[np.int64], fractions: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int8]:
    """Give each group in turn to the part that lacks most images; no part stays empty."""
    lacking = (fractions * sizes.sum()).tolist()
    parts = np.zeros(len(sizes), np.int8)
    empty = set(range(len(fractions)))
    for position, group in enumerate(order.tolist()):
        candidates = empty if len(order) - position <= len(empty) else range(len(fractions))
        part = max(candidates, key=lambda p: (lacking[p], -p))
        parts[group] = part
        lacking[part] -= int(sizes[group])
        empty.discard(part)
    return parts
