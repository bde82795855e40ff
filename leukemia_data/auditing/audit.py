"""The leak audit: one verdict on each thing that can invalidate results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from leukemia_data.auditing.audit_image import FAULTS, AuditImage, Check, Verdict, counted, frame_faults, usual_size
from leukemia_data.auditing.audit_pairs import (
    AuditPair,
    NearGroup,
    Sides,
    count_value_pairs,
    group_pairs,
    identical_groups,
    near_identical_checks,
    near_identical_groups,
    pairs_between,
    shared_subjects,
    subject_order,
)
from leukemia_data.errors import listed
from leukemia_data.scanning.frame_finding import SeenFrame, find_telling_frames
from leukemia_data.scanning.frame_notes import finding_note
from leukemia_data.sources.name_words import alike_subjects
from leukemia_data.sources.reading import FrameFinding


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """Images and subjects of one class.

    Attributes
    ----------
    name
        Name of the class; empty for unlabelled images.
    num_images
        Number of images, including those of unknown subjects.
    images_per_subject
        Subject -> number of images, most first.
    num_unknown
        Number of images of unknown subjects.
    """

    name: str
    num_images: int
    images_per_subject: dict[str, int]
    num_unknown: int

    @property
    def largest_share(self) -> float:
        """Fraction of the class's images from its most frequent subject, 0 ... 1; 0 if no subject is known."""
        return max(self.images_per_subject.values(), default=0) / self.num_images

    def describe(self) -> str:
        """Return one line of text."""
        counts = list(self.images_per_subject.values())
        if not counts:
            return f"{self.num_images:,} images of unknown subjects"
        largest = next(iter(self.images_per_subject))
        unknown = f", {self.num_unknown:,} of unknown subjects" if self.num_unknown else ""
        return (
            f"{self.num_images:,} images of {len(counts)} subjects, {min(counts)} to {max(counts)} each "
            f"(median {median(counts):g}); largest: {largest}, {self.largest_share:.1%} of the class{unknown}"
        )


def class_balance(images: Sequence[AuditImage]) -> list[ClassBalance]:
    """Return the balance of each class, sorted by name, unlabelled images last."""
    balance = []
    for name in sorted({image.class_name for image in images}, key=lambda name: (not name, name)):
        subjects = [image.subject for image in images if image.class_name == name]
        counts = Counter(filter(None, subjects))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], subject_order(item[0])))
        balance.append(ClassBalance(name, len(subjects), dict(ordered), len(subjects) - counts.total()))
    return balance


_MAX_LISTED = 8


@dataclass(frozen=True, slots=True)
class FrameFault:
    """An odd frame: index of the image, key of ``FAULTS``, and the measured reason."""

    image: int
    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All findings of an audit.

    Attributes
    ----------
    images, sides
        The images, and the divisions that were checked.
    identical, near
        Pairs of identical images, and of similar images that are neither identical nor near-identical.
    near_groups
        Groups of near-identical images.
    two_classes
        Subject -> its classes, if several.
    shared
        Per division: subject -> side -> number of images, for subjects on several sides.
    faults
        Odd frames.
    balance
        Images and subjects of each class.
    checks
        The verdicts, in the order of the table.
    """

    images: Sequence[AuditImage]
    sides: Sequence[Sides]
    identical: Sequence[AuditPair]
    near: Sequence[AuditPair]
    near_groups: Sequence[NearGroup]
    two_classes: dict[str, tuple[str, ...]]
    shared: dict[str, dict[str, dict[str, int]]]
    faults: Sequence[FrameFault]
    balance: Sequence[ClassBalance]
    checks: Sequence[Check]

    @property
    def has_leak(self) -> bool:
        """Whether any check found a leak."""
        return any(check.verdict == "LEAK" for check in self.checks)


def audit_images(
    images: Sequence[AuditImage],
    sides: Sequence[Sides],
    *,
    near: Sequence[AuditPair] | None = None,
    near_missing: str = "there are no pixels to look at",
    are_confirmed: bool = False,
) -> AuditReport:
    """Check images for leaks, contradictions and odd frames.

    Parameters
    ----------
    images
        From any number of sources, caches and tables, including unusable ones.
    sides
        Divisions that a training might use.
    near
        Pairs of similar images, which may include identical ones; ``None`` if not searched.
    near_missing
        Reason for ``None``.
    are_confirmed
        Whether the user confirmed the subjects, so that one may have images of several classes.
    """
    groups = identical_groups(images)
    identical = group_pairs(groups)
    near_groups = near_identical_groups(images, groups)
    near_only = _beyond([*groups, *(group.images for group in near_groups)], near or ())
    shared = {division.key: shared_subjects(images, division) for division in sides}
    two_classes = _subjects_of_two_classes(images)
    faults = _all_faults(images)
    balance = class_balance(images)
    checks = [
        *_identical_checks(images, sides, groups, identical),
        *near_identical_checks(images, sides, near_groups),
        *_near_checks(images, sides, None if near is None else near_only, near_missing),
        *_subject_checks(images, sides, shared, two_classes, are_confirmed),
        *_frame_checks(images, faults),
        *_balance_checks(images, balance),
    ]
    return AuditReport(
        images=images,
        sides=sides,
        identical=identical,
        near=near_only,
        near_groups=near_groups,
        two_classes=two_classes,
        shared=shared,
        faults=faults,
        balance=balance,
        checks=checks,
    )


def _beyond(groups: Sequence[tuple[int, ...]], near: Sequence[AuditPair]) -> list[AuditPair]:
    """Pairs that are not within one of the groups."""
    # A later group contains every earlier one that it overlaps.
    group_of = {number: position for position, group in enumerate(groups) for number in group}
    return [pair for pair in near if group_of.get(pair.first, -1) != group_of.get(pair.second, -2)]


def _identical_checks(
    images: Sequence[AuditImage], sides: Sequence[Sides], groups: list[tuple[int, ...]], pairs: list[AuditPair]
) -> Iterator[Check]:
    if not any(image.content_keys for image in images):
        yield Check("identical", "unchecked", None, "identical images: neither pixels nor digests are known")
        return
    num_images = sum(map(len, groups))
    text = "pairs of identical images"
    if pairs:
        groups_text = f"{len(groups):,} group{'s' if len(groups) > 1 else ''} of together {num_images:,} images"
        text += f" ({groups_text}; k identical images are k(k-1)/2 pairs)"
    yield counted("identical", "LOOK", len(pairs), text)
    if not pairs:
        return
    yield from _where_checks("identical", images, sides, pairs)
    conflicts = pairs_between(pairs, [image.class_name for image in images])
    yield counted("identical_labels", "WRONG", len(conflicts), "  with two labels")


def _near_checks(
    images: Sequence[AuditImage], sides: Sequence[Sides], pairs: list[AuditPair] | None, near_missing: str
) -> Iterator[Check]:
    if pairs is None:
        yield Check("near", "unchecked", None, f"near duplicates: {near_missing}")
        return
    text = "pairs that look alike without being identical or near-identical (one cell photographed again, as a rule)"
    yield counted("near", "LOOK", len(pairs), text)
    if not pairs:
        return
    photos = [image.photo for image in images]
    within = sum(1 for pair in pairs if photos[pair.first] and photos[pair.first] == photos[pair.second])
    yield Check("near_photo", "info", within, "  cut from one photograph")
    yield from _where_checks("near", images, sides, pairs)


def _where_checks(
    key: str, images: Sequence[AuditImage], sides: Sequence[Sides], pairs: list[AuditPair]
) -> Iterator[Check]:
    """Count pairs between subjects and between sides."""
    subjects = [image.subject for image in images]
    across = pairs_between(pairs, subjects)
    between = [f"{a} = {b} ({count})" for (a, b), count in _naturally(count_value_pairs(across, subjects))]
    names = f": {listed(between, most=_MAX_LISTED)}" if between else ""
    num_unknown = sum(not (subjects[pair.first] and subjects[pair.second]) for pair in pairs)
    names += f"; {num_unknown} more of unknown subjects" if num_unknown else ""
    yield counted(f"{key}_subjects", "LOOK", len(across), f"  of two subjects{names}")
    for division in sides:
        crossing = pairs_between(pairs, division.of_image)
        places = [
            f"{a if a == b else f'{a} and {b}'} ({count})"
            for (a, b), count in count_value_pairs(pairs, division.of_image).items()
        ]
        where = f"; where: {listed(places, most=_MAX_LISTED)}" if places else ""
        # Similar images do not block a training, so they are not a leak here either.
        verdict: Verdict = "LEAK" if key == "identical" else "LOOK"
        yield counted(f"{key}_{division.key}", verdict, len(crossing), f"  on two sides of the {division.name}{where}")


def _naturally(counts: dict[tuple[str, str], int]) -> list[tuple[tuple[str, str], int]]:
    """Pairs of subjects in natural order, most frequent pairs first."""
    ordered = [((min(pair, key=subject_order), max(pair, key=subject_order)), count) for pair, count in counts.items()]
    return sorted(ordered, key=lambda item: (-item[1], [subject_order(subject) for subject in item[0]]))


def _subject_checks(
    images: Sequence[AuditImage],
    sides: Sequence[Sides],
    shared: dict[str, dict[str, dict[str, int]]],
    two_classes: dict[str, tuple[str, ...]],
    are_confirmed: bool,
) -> Iterator[Check]:
    num_unknown = sum(not image.subject for image in images)
    has_subjects = num_unknown < len(images)
    for division in sides:
        key, title = f"subjects_{division.key}", f"subjects on two sides of the {division.name}"
        if not has_subjects:
            yield Check(key, "unchecked", None, f"{title}: no subject is known")
            continue
        found = shared[division.key]
        blind = sum(bool(side) and not image.subject for image, side in zip(images, division.of_image, strict=True))
        names = f": {listed(found, most=_MAX_LISTED)}" if found else ""
        note = f"; without a subject and not checked: {blind:,} there" if blind else ""
        yield counted(key, "LEAK", len(found), f"{title}{names}{note}")
    if has_subjects:
        alike = [" = ".join(group) for group in alike_subjects(image.subject for image in images)]
        yield _doubt("two_classes", "subjects with images of two classes", list(two_classes), are_confirmed)
        yield _doubt("alike_subjects", "subjects that may be one person, written in several ways", alike, are_confirmed)
    yield counted("no_subject", "LOOK", num_unknown, "images of unknown subjects")


def _doubt(key: str, title: str, found: Sequence[str], are_confirmed: bool) -> Check:
    """A doubt that subjects are people, unless the user confirmed them."""
    if not found:
        return Check(key, "ok", 0, title)
    confirmed = ", as was confirmed" if are_confirmed else ""
    text = f"{title}: {listed(found, most=_MAX_LISTED)}{confirmed}"
    return Check(key, "info" if are_confirmed else "WRONG", len(found), text)


def _subjects_of_two_classes(images: Sequence[AuditImage]) -> dict[str, tuple[str, ...]]:
    classes: dict[str, set[str]] = {}
    for image in images:
        if image.subject and image.class_name:
            classes.setdefault(image.subject, set()).add(image.class_name)
    several = [subject for subject, names in classes.items() if len(names) > 1]
    return {subject: tuple(sorted(classes[subject])) for subject in sorted(several, key=subject_order)}


def _all_faults(images: Sequence[AuditImage]) -> list[FrameFault]:
    usual = {
        argument: usual_size(image.frame for image in images if image.argument == argument and image.frame is not None)
        for argument in {image.argument for image in images}
    }
    faults = []
    for number, image in enumerate(images):
        size = usual[image.argument]
        if image.problem:
            faults.append(FrameFault(number, "unusable", image.problem))
        if image.frame is not None and size is not None:
            faults.extend(FrameFault(number, kind, detail) for kind, detail in frame_faults(image.frame, size))
    return faults


def _frame_checks(images: Sequence[AuditImage], faults: Sequence[FrameFault]) -> Iterator[Check]:
    num_measured = sum(image.frame is not None for image in images)
    yield from _telling_checks(images)
    for kind, title in FAULTS.items():
        count = sum(fault.kind == kind for fault in faults)
        if num_measured or count:
            yield counted(f"frames_{kind}", "LOOK", count, f"frames {title}")
    if not num_measured:
        text = "frames (size, black, border, centre, pieces, background): no originals"
        yield Check("frames", "unchecked", None, text)


def _telling_checks(images: Sequence[AuditImage]) -> Iterator[Check]:
    """Check whether frames alone predict the class."""
    seen = [
        SeenFrame(image.traits, image.class_name, image.subject)
        for image in images
        if image.traits is not None and image.class_name
    ]
    finding = find_telling_frames(seen)
    if finding is not None:
        yield frame_finding_check(finding)


def frame_finding_check(finding: FrameFinding) -> Check:
    """Return the verdict on frames that predict the class; for a cache, that of its build."""
    if finding.tells_class:
        return Check("frames_tell", "LOOK", None, finding_note(finding))
    score = f"balanced accuracy {finding.balanced_accuracy:.2f}, chance {finding.chance:.2f}"
    return Check(
        "frames_tell", "ok", None, f"frames (size, ground, format) that tell the classes apart: none ({score})"
    )


def _balance_checks(images: Sequence[AuditImage], balance: Sequence[ClassBalance]) -> Iterator[Check]:
    for one in balance:
        title = f"class {one.name}" if one.name else "without a label"
        yield Check(f"class_{one.name}", "info", one.num_images, f"{title}: {one.describe()}")
    labelled = [one.num_images for one in balance if one.name]
    if len(labelled) > 1:
        share = max(labelled) / sum(labelled)
        text = f"classes; always answering the most frequent one scores an accuracy of {share:.3f}"
        yield Check("classes", "info", len(labelled), text)
