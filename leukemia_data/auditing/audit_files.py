"""An audit's report as JSON and as a CSV table of all findings."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leukemia_data.auditing.audit import AuditReport
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_notes import AuditArgument
from leukemia_data.auditing.audit_pairs import AuditPair
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.spreadsheet import formula_safe, quoting_for
from leukemia_data.samples.record import NO_FOLD

_IMAGE_COLUMNS = ("image", "argument", "class", "subject", "split", "fold")
COLUMNS = (
    "kind",
    *_IMAGE_COLUMNS,
    *(f"other_{name}" for name in _IMAGE_COLUMNS),
    "distance",
    "correlation",
    "detail",
)


def write_findings(path: Path, report: AuditReport, arguments: Sequence[AuditArgument]) -> int:
    """Write every finding as a row, atomically; texts that a spreadsheet would take for formulas are quoted.

    Returns
    -------
    int
        Number of findings. A pair of images is one, so are a subject on two sides and an odd frame.
    """
    rows = [{name: formula_safe(text) for name, text in row.items()} for row in _rows(report, arguments)]
    quoting = quoting_for(text for row in rows for text in row.values())
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n", quoting=quoting)
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def report_json(report: AuditReport, arguments: Sequence[AuditArgument], notes: Sequence[str]) -> dict[str, Any]:
    """The report as JSON values; lists of findings are in the CSV table only."""
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
