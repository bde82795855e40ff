"""What a recovery of subjects found, in numbers, and the leak of the tables' own split."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from leukemia_data.auditing.audit import AuditReport, audit_images
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import brought_sides, shared_subjects
from leukemia_data.auditing.lab_table import LabTable
from leukemia_data.auditing.subject_recovery import RecoveredRow, Recovery
from leukemia_data.files.atomic import atomic_path
from leukemia_data.files.spreadsheet import formula_safe, quoting_for

_COLUMNS = ("table", "line", "path", "finding", "subject", "detail")


def count_rows(rows: Sequence[RecoveredRow]) -> dict[str, int]:
    """How many rows were found and how, and what is odd about them."""
    statuses = Counter(row.match.status for row in rows)
    return {
        "rows": len(rows),
        "found": statuses["bytes"] + statuses["pixels"],
        "by_bytes": statuses["bytes"],
        "by_pixels": statuses["pixels"],
        "ambiguous": sum(bool(row.candidates_text) for row in rows),
        "without_subject": statuses["no subject"],
        "unknown": statuses["unknown"],
        "unusable": statuses["unusable"],
        "label_disagreements": sum(bool(row.label_denied) for row in rows),
        "subjects": len({row.subject for row in rows if row.subject}),
    }


def audit_rows(recovery: Recovery) -> AuditReport:
    """Audit the tables' own split, with each ``Path`` taken once (the lab's test tables repeat them)."""
    rows = {row.path: row for row in reversed(recovery.rows)}
    images = [
        AuditImage(
            name=row.path,
            class_name=row.class_name,
            subject=row.subject,
            split=row.split,
            pixel_digest=row.match.key,
            problem=row.match.problem,
        )
        for row in reversed(rows.values())
    ]
    return audit_images(images, brought_sides(images, [""]))


def mixed_shares(report: AuditReport) -> dict[str, tuple[int, int]]:
    """Given split -> how many of its images are of subjects with images on other sides, and how many it has."""
    shares = {}
    for division in report.sides:
        if division.key == "split":
            shared = shared_subjects(report.images, division)
            for side in division.names:
                members = [i for i, s in zip(report.images, division.of_image, strict=True) if s == side]
                shares[side] = (sum(image.subject in shared for image in members), len(members))
    return shares


def recovery_json(recovery: Recovery, tables: Sequence[LabTable], report: AuditReport) -> dict[str, Any]:
    """Everything as JSON values; rows that need a look are in the CSV table only."""
    return {
        "tables": [
            {"table": str(table.path), **count_rows(recovery.of_table(number))} for number, table in enumerate(tables)
        ],
        "all": count_rows(recovery.rows),
        "linked_subjects": [list(names) for names in recovery.linked],
        "untied_subjects": [list(names) for names in recovery.untied],
        "leak": report.has_leak,
        "checks": [{"key": c.key, "verdict": c.verdict, "count": c.count, "text": c.text} for c in report.checks],
        "images_of_mixed_subjects": {
            side: {"images": count, "of": total} for side, (count, total) in mixed_shares(report).items()
        },
    }


def write_odd_rows(path: Path, recovery: Recovery, tables: Sequence[LabTable]) -> int:
    """Write the rows that need a look as CSV, atomically, and return their number."""
    odd = [
        (tables[row.table].path.name, str(row.line), row.path, finding, row.subject, detail)
        for row in recovery.rows
        for finding, detail in _findings(row)
    ]
    rows = [[formula_safe(cell) for cell in cells] for cells in odd]
    quoting = quoting_for(cell for row in rows for cell in row)
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n", quoting=quoting)
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    return len(rows)


def _findings(row: RecoveredRow) -> Iterator[tuple[str, str]]:
    names = ", ".join(image.name for image in row.match.known)
    if row.candidates_text:
        yield "ambiguous", f"{row.candidates_text}: {names}"
    if row.match.status == "no subject":
        yield "without subject", names
    if row.match.status == "unknown":
        yield "unknown", "not in the reference"
    if row.match.status == "unusable":
        yield "unusable", row.match.problem
    if row.label_denied:
        yield "label", f"the table says {row.class_name}, the reference {row.label_denied}: {names}"
