"""An audit's report: notes, conclusion, JSON and a table of all findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from leukemia_data.auditing.audit import AuditReport
from leukemia_data.auditing.audit_image import AuditImage, Check
from leukemia_data.auditing.audit_input import TrainingSplit, training_split
from leukemia_data.auditing.audit_pairs import AuditPair
from leukemia_data.errors import UsageError
from leukemia_data.files.csv_table import write_csv
from leukemia_data.records.near_looks import comparison_note
from leukemia_data.records.record import NO_FOLD
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_data.splitting.split_spec import SplitSpec


@dataclass(frozen=True, slots=True)
class AuditArgument:
    """An audited input: its name as given, its kind, and a description (a cache's recipe and size)."""

    name: str
    kind: Literal["source", "cache", "table"]
    text: str


def blind_spots(arguments: Sequence[AuditArgument], images: Sequence[AuditImage]) -> list[str]:
    """Return notes on checks that are impossible for these arguments, and on arguments with the same images."""
    members: defaultdict[int, list[AuditImage]] = defaultdict(list)
    for image in images:
        members[image.argument].append(image)
    notes = []
    for number, argument in enumerate(arguments):
        if argument.kind == "cache":
            notes.append(
                f"{argument.name} is a cache: its frames' size, border, centre, pieces and background were not "
                "checked, and near duplicates were looked for in preprocessed images; audit the SOURCE for both"
            )
        elif argument.kind == "table":
            notes.append(
                f"{argument.name} has names and SHA-256 but no pixels: identical means equal bytes, and near "
                "duplicates and frames were not checked"
            )
            notes.extend(_incomparable_parts(argument, members[number]))
    if how := comparison_note(sum(bool(image.look) for image in images)):
        notes.append(how)
    for (a, first), (b, second) in combinations(enumerate(arguments), 2):
        notes.extend(_pair_notes(first, members[a], second, members[b]))
    return notes


def _incomparable_parts(argument: AuditArgument, images: Sequence[AuditImage]) -> list[str]:
    """Note on parts whose files have no size in common, and therefore no equal bytes."""
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    for image in images:
        if image.split and image.size_bytes >= 0:
            sizes[image.split].add(image.size_bytes)
    apart = [f"{a} and {b}" for a, b in combinations(sorted(sizes), 2) if not sizes[a] & sizes[b]]
    if not apart:
        return []
    return [
        f"{argument.name}: files of {', '.join(apart)} differ in size, so equal pixels would not have equal bytes "
        "there; only an audit of the images themselves can compare these parts"
    ]


def _pair_notes(
    first: AuditArgument, first_images: Sequence[AuditImage], second: AuditArgument, second_images: Sequence[AuditImage]
) -> list[str]:
    if {first.kind, second.kind} == {"cache", "table"}:
        return [f"{first.name} and {second.name} cannot be compared: a cache has no SHA-256 of its files"]
    a, b = ({key for image in images for key in image.content_keys} for images in (first_images, second_images))
    if a and b and len(a & b) >= 0.9 * min(len(a), len(b)):
        return [
            f"{first.name} and {second.name} are nearly the same set of images ({len(a & b):,} in common): "
            "if one was made from the other, give only one of them"
        ]
    return []


@dataclass(frozen=True, slots=True)
class TrainingOutlook:
    """The stamp that a training would put on its split, or why the split is impossible."""

    split: str
    seed: int
    stamp: str = ""
    refusal: str = ""

    @property
    def is_disjoint(self) -> bool:
        """Whether the training would start, with results on unseen patients."""
        return is_disjoint_stamp(self.stamp)

    def describe(self) -> str:
        """Return one sentence."""
        if self.refusal:
            return f"A training on --split {self.split} would be refused: {self.refusal}"
        start = f"A training on --split {self.split} (split seed {self.seed}) would be"
        return f"{start} stamped {self.stamp}." if self.is_disjoint else f"{start} refused as {self.stamp}."


def training_outlook(
    spec: SplitSpec,
    images: Sequence[AuditImage],
    seed: int,
    classes: Sequence[str],
    subjects: SubjectsFound | None = None,
    *,
    split: TrainingSplit | None = None,
) -> TrainingOutlook | None:
    """Return the stamp that ``ltrain`` would put on a split of these images; None if their pixels are unknown.

    Takes the arguments of :func:`~leukemia_data.auditing.audit_input.training_split`; `split` is its result, if it was
    called already.
    """
    if not any(image.pixel_digest for image in images):
        return None
    try:
        found = split if split is not None else training_split(spec, images, seed, classes, subjects)
    except UsageError as error:
        return TrainingOutlook(str(spec), seed, refusal=str(error))
    return TrainingOutlook(str(spec), seed, found.leaks.stamp)


def conclusion(checks: Sequence[Check], outlook: TrainingOutlook | None) -> list[str]:
    """Return sentences on an audit's checks, and on the given or default split of a training if known."""
    sentences = []
    for verdict, noun in (("LEAK", "leak"), ("WRONG", "contradiction")):
        if count := sum(check.verdict == verdict for check in checks):
            sentences.append(f"1 finding is a {noun}." if count == 1 else f"{count} findings are {noun}s.")
    if not sentences and (outlook is None or outlook.is_disjoint):
        sentences.append("No leak was found by what could be checked.")
    if any(check.key == "no_subject" and check.count for check in checks):
        sentences.append("Where the subject is not known, no split can be checked for being subject-disjoint.")
    return [*sentences, *([] if outlook is None else [outlook.describe()])]


_IMAGE_COLUMNS = ("image", "argument", "class", "subject", "split", "fold")
_OTHER_COLUMNS = tuple(f"other_{name}" for name in _IMAGE_COLUMNS)
COLUMNS = ("kind", *_IMAGE_COLUMNS, *_OTHER_COLUMNS, "distance", "correlation", "detail")


def write_findings(path: Path, report: AuditReport, arguments: Sequence[AuditArgument]) -> None:
    """Write every finding (pairs of images, subjects on two sides, odd frames) as a row of a CSV table, atomically."""
    write_csv(path, COLUMNS, ([row.get(name, "") for name in COLUMNS] for row in _rows(report, arguments)))


def report_json(report: AuditReport, arguments: Sequence[AuditArgument], notes: Sequence[str]) -> dict[str, Any]:
    """Return the report as JSON values; lists of findings are in the CSV table only."""
    return {
        "arguments": [
            {**asdict(argument), "images": sum(image.argument == number for image in report.images)}
            for number, argument in enumerate(arguments)
        ],
        "images": len(report.images),
        "leak": report.has_leak,
        "checks": [asdict(check) for check in report.checks],
        "shared_subjects": report.shared,
        "subjects_of_two_classes": {subject: list(names) for subject, names in report.two_classes.items()},
        "balance": [
            {
                "class": one.name,
                "images": one.num_images,
                "subjects": len(one.images_per_subject),
                "images_of_unknown_subjects": one.num_unknown,
                "largest_share": one.largest_share,
                "images_per_subject": one.images_per_subject,
            }
            for one in report.balance
        ],
        "notes": list(notes),
    }


def _rows(report: AuditReport, arguments: Sequence[AuditArgument]) -> Iterator[dict[str, str]]:
    for pair in report.identical:
        yield {"kind": "identical", **_pair_cells(pair, report, arguments)}
    for number, group in enumerate(report.near_groups, 1):
        detail = f"group {number} of {len(group.images)} images"
        for pair in group.pairs:
            yield {"kind": "near_identical", **_pair_cells(pair, report, arguments), "detail": detail}
    for pair in report.near:
        yield {"kind": "near", **_pair_cells(pair, report, arguments)}
    for division in report.sides:
        for subject, counts in report.shared[division.key].items():
            places = ", ".join(f"{side}: {count}" for side, count in counts.items())
            yield {"kind": "shared_subject", "subject": subject, "detail": f"{division.name}: {places}"}
    for subject, names in report.two_classes.items():
        yield {"kind": "two_classes", "subject": subject, "detail": ", ".join(names)}
    for fault in report.faults:
        image = report.images[fault.image]
        yield {"kind": f"frame_{fault.kind}", **_image_cells(image, arguments), "detail": fault.detail}
    for image in report.images:
        if not image.subject:
            yield {"kind": "no_subject", **_image_cells(image, arguments)}


def _pair_cells(pair: AuditPair, report: AuditReport, arguments: Sequence[AuditArgument]) -> dict[str, str]:
    first, second = report.images[pair.first], report.images[pair.second]
    return {
        **_image_cells(first, arguments),
        **{f"other_{name}": text for name, text in _image_cells(second, arguments).items()},
        "distance": "" if pair.distance is None else str(pair.distance),
        "correlation": "" if pair.correlation is None else f"{pair.correlation:.3f}",
    }


def _image_cells(image: AuditImage, arguments: Sequence[AuditArgument]) -> dict[str, str]:
    return {
        "image": image.name,
        "argument": arguments[image.argument].name,
        "class": image.class_name,
        "subject": image.subject,
        "split": image.split,
        "fold": "" if image.fold == NO_FOLD else str(image.fold),
    }
