"""Recovery of subjects: add a column ``subject`` to a lab's tables of renumbered files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leukemia_data.auditing.audit import AuditReport, audit_images
from leukemia_data.auditing.audit_image import AuditImage, Check
from leukemia_data.auditing.audit_pairs import brought_sides
from leukemia_data.auditing.reference_index import (
    LabTable,
    ReferenceIndex,
    locate_files,
    read_lab_table,
    read_reference_table,
    write_lab_table,
)
from leukemia_data.auditing.subject_matching import RecoveredRow, Recovery, assign_subjects, match_files
from leukemia_data.caches.opening import find_caches, open_chosen_cache
from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.decoding.decode import one_opencv_thread
from leukemia_data.errors import SourceError, UsageError, listed
from leukemia_data.files.csv_table import write_csv
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.source import list_images

_OWN_CHECKS = ("identical_split", "identical_labels", "subjects_split", "two_classes", "alike_subjects")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRecovery:
    """Result of a recovery.

    Attributes
    ----------
    recovery, tables
        All rows with their matches, and the tables.
    report
        The audit of the tables' own split.
    out_dir, num_odd
        Folder of the tables with subjects, and number of rows in ``recovery.csv`` that need review.
    """

    recovery: Recovery = field(repr=False)
    tables: tuple[LabTable, ...] = field(repr=False)
    report: AuditReport = field(repr=False)
    out_dir: Path
    num_odd: int

    @property
    def own_checks(self) -> list[Check]:
        """Return the audit's checks of identical images and subjects of the tables' split."""
        return [check for check in self.report.checks if check.key in _OWN_CHECKS]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; rows that need review are in ``recovery.csv`` only."""
        recovery, report = self.recovery, self.report
        return {
            "tables": [
                {"table": str(table.path), **_counts(recovery.of_table(number))}
                for number, table in enumerate(self.tables)
            ],
            "all": _counts(recovery.rows),
            "linked_subjects": [list(names) for names in recovery.linked],
            "untied_subjects": [list(names) for names in recovery.untied],
            "leak": report.has_leak,
            "checks": [asdict(check) for check in report.checks],
            "images_of_mixed_subjects": _mixed_images(report),
            "out_dir": str(self.out_dir),
        }


def recover_subjects(
    tables: Sequence[Path],
    references: Sequence[Path],
    out_dir: Path,
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    join_linked: bool = False,
    num_threads: int | None = None,
    console: Console = NULL_CONSOLE,
) -> SubjectRecovery:
    """Write a lab's tables with columns ``subject`` and ``subject_candidates``, found by the content of the files.

    Files are compared by bytes with a table of names, and by decoded pixels with a folder or a cache.

    Parameters
    ----------
    tables, references, root, allow_outside, join_linked
        As for :func:`leukemia_data.recover_subjects`.
    out_dir
        Folder for the tables with subjects, and ``recovery.csv``.
    num_threads
        Images decoded at a time; None for one per core.
    console
        Receives notes on unusable reference images, and the progress.

    Raises
    ------
    UsageError
        If two tables have one name, or `out_dir` is the folder of one; or a table is no CSV file.
    SourceError
        If a table or reference cannot be read, or no file was found at all; nothing is written then.
    """
    _check_targets(tables, out_dir)
    num_threads = num_threads or os.cpu_count() or 1
    with one_opencv_thread():
        read = tuple(map(read_lab_table, tables))
        index = _read_references(references, num_threads, console)
        files = {}
        for number, table in enumerate(read):
            start = table.path.parent if root is None else root
            for text, path in locate_files(table, start, allow_outside=allow_outside).items():
                files[number, text] = path
        places = list(dict.fromkeys(files.values()))
        found = tracked(match_files(places, index, num_threads=num_threads), console, len(places), "looking files up")
        matches = dict(zip(places, found, strict=True))
    recovery = assign_subjects(read, files, matches, index.linked_subjects(), join_linked=join_linked)
    if not any(row.match.known for row in recovery.rows):
        raise SourceError(_nothing_found(recovery, index))
    num_odd = _write(out_dir, recovery, read)
    return SubjectRecovery(
        recovery=recovery, tables=read, report=_audit_rows(recovery), out_dir=out_dir, num_odd=num_odd
    )


def _check_targets(tables: Sequence[Path], out_dir: Path) -> None:
    """Raise UsageError if two tables would be written to one file, or over an input."""
    names = [table.name.lower() for table in tables]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"several tables are called {repeated[0]}: they would be written to one file in {out_dir}")
    if any(table.resolve().parent == out_dir.resolve() for table in tables):
        raise UsageError(f"--out-dir {out_dir} is the folder of a table given: it would be overwritten")


def _read_references(references: Sequence[Path], num_threads: int, console: Console) -> ReferenceIndex:
    index = ReferenceIndex()
    for path in references:
        if path.is_file():
            index.add_table(read_reference_table(path))
        elif find_caches(path):
            index.add_cache(open_chosen_cache(path))
        else:
            if unusable := index.add_files(list_images([path]), num_threads=num_threads, console=console):
                console.note(f"note: {len(unusable)} images of {path} cannot be used: {listed(unusable, most=3)}")
    return index


def _nothing_found(recovery: Recovery, index: ReferenceIndex) -> str:
    unusable = [row for row in recovery.rows if row.match.status == "unusable"]
    if len(unusable) == len(recovery.rows):
        return (
            f"none of the {len(unusable):,} files can be read, the first: {unusable[0].path}: "
            f"{unusable[0].match.problem}; say with --root which folder the paths start from"
        )
    cure = "" if index.by_pixels else "; a table of names finds equal bytes only: give the folder of images instead"
    return f"none of the {len(recovery.rows):,} files is among the {index.num_images:,} images of the reference{cure}"


def _write(out_dir: Path, recovery: Recovery, tables: Sequence[LabTable]) -> int:
    """Write the tables with subjects and the rows that need review; return the number of the latter."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(tables):
        rows = recovery.of_table(number)
        subjects, candidates = [row.subject for row in rows], [row.candidates_text for row in rows]
        columns = {"subject": subjects, "subject_candidates": candidates}
        write_lab_table(out_dir / table.path.name, table, columns)
    odd = [
        (tables[row.table].path.name, str(row.line), row.path, finding, row.subject, detail)
        for row in recovery.rows
        for finding, detail in _findings(row)
    ]
    write_csv(out_dir / "recovery.csv", _COLUMNS, odd)
    return len(odd)


_COLUMNS = ("table", "line", "path", "finding", "subject", "detail")


def _counts(rows: Sequence[RecoveredRow]) -> dict[str, int]:
    """Count rows by status and by finding."""
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


def _audit_rows(recovery: Recovery) -> AuditReport:
    """Audit the tables' own split, with each ``Path`` counted once: the lab's test tables repeat them."""
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


def _mixed_images(report: AuditReport) -> dict[str, dict[str, int]]:
    """Given split -> number of its images whose subject is also on another side, and number of its images."""
    found = {}
    for division in report.sides:
        if division.key == "split":
            shared = report.shared[division.key]
            for side in division.names:
                subjects = [i.subject for i, s in zip(report.images, division.of_image, strict=True) if s == side]
                found[side] = {"images": sum(subject in shared for subject in subjects), "of": len(subjects)}
    return found


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
