"""The part of ``ldata recover-subjects`` that reads, compares and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from cli.output import format_table, print_json, print_note, print_text
from cli.progress import progress_bar
from leukemia_data.auditing.audit import AuditReport
from leukemia_data.auditing.reference_index import (
    LabTable,
    ReferenceIndex,
    locate_files,
    read_lab_table,
    read_reference_table,
    write_lab_table,
)
from leukemia_data.auditing.subject_recovery import (
    Recovery,
    audit_rows,
    count_rows,
    match_files,
    mixed_shares,
    recover_subjects,
    recovery_json,
    write_odd_rows,
)
from leukemia_data.caches.cache import choose_cache_dir, find_cache_dirs, open_cache
from leukemia_data.errors import SourceError, listed
from leukemia_data.sources.source import list_images

_COUNTS = ("rows", "found", "ambiguous", "without_subject", "unknown", "unusable", "label_disagreements", "subjects")
_TOLD_CHECKS = ("identical_split", "identical_labels", "subjects_split", "two_classes", "alike_subjects")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryRequest:
    """A checked command line."""

    tables: tuple[Path, ...]
    references: tuple[Path, ...]
    root: Path | None
    allow_outside: bool
    out_dir: Path
    join_linked: bool
    num_threads: int


def recover_and_report(request: RecoveryRequest, *, as_json: bool) -> None:
    """Find the subjects, write the tables, and tell what was found and what the tables' split mixes.

    Raises
    ------
    SourceError
        If a table or reference cannot be read, or no file was found at all; nothing is written then.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    tables = [read_lab_table(path) for path in request.tables]
    index = _read_references(request)
    recovery = _recover(tables, index, request)
    if not any(row.match.known for row in recovery.rows):
        raise SourceError(_nothing_found(recovery, index))
    request.out_dir.mkdir(parents=True, exist_ok=True)
    for number, table in enumerate(tables):
        rows = recovery.of_table(number)
        columns = {
            "subject": [row.subject for row in rows],
            "subject_candidates": [row.candidates_text for row in rows],
        }
        write_lab_table(request.out_dir / table.path.name, table, columns)
    num_odd = write_odd_rows(request.out_dir / "recovery.csv", recovery, tables)
    report = audit_rows(recovery)
    if as_json:
        print_json({**recovery_json(recovery, tables, report), "out_dir": str(request.out_dir)})
    else:
        _print(request, tables, recovery, report, num_odd)


def _read_references(request: RecoveryRequest) -> ReferenceIndex:
    index = ReferenceIndex()
    for path in request.references:
        if path.is_file():
            index.add_table(read_reference_table(path))
        elif find_cache_dirs(path):
            index.add_cache(open_cache(choose_cache_dir(path)))
        else:
            records = list_images([path])
            with progress_bar(len(records), "reading the reference") as bar:
                unusable = index.add_files(records, num_threads=request.num_threads, progress=bar.update)
            if unusable:
                print_note(f"note: {len(unusable)} images of {path} cannot be used: {listed(unusable, most=3)}")
    return index


def _recover(tables: Sequence[LabTable], index: ReferenceIndex, request: RecoveryRequest) -> Recovery:
    files = {
        (number, text): path
        for number, table in enumerate(tables)
        for text, path in locate_files(
            table,
            request.root if request.root is not None else table.path.parent,
            allow_outside=request.allow_outside,
        ).items()
    }
    paths = list(dict.fromkeys(files.values()))
    with progress_bar(len(paths), "looking files up") as bar:
        found = match_files(paths, index, num_threads=request.num_threads, progress=bar.update)
    matches = dict(zip(paths, found, strict=True))
    return recover_subjects(tables, files, matches, index.linked_subjects(), join_linked=request.join_linked)


def _nothing_found(recovery: Recovery, index: ReferenceIndex) -> str:
    unusable = [row for row in recovery.rows if row.match.status == "unusable"]
    if len(unusable) == len(recovery.rows):
        return (
            f"none of the {len(unusable):,} files can be read, the first: {unusable[0].path}: "
            f"{unusable[0].match.problem}; say with --root which folder the paths start from"
        )
    cure = "" if index.by_pixels else "; a table of names finds equal bytes only: give the folder of images instead"
    return f"none of the {len(recovery.rows):,} files is among the {index.num_images:,} images of the reference{cure}"


def _print(
    request: RecoveryRequest, tables: Sequence[LabTable], recovery: Recovery, report: AuditReport, num_odd: int
) -> None:
    rows = [(table.path.name, count_rows(recovery.of_table(number))) for number, table in enumerate(tables)]
    header = ["table", *(name.replace("_", " ") for name in _COUNTS)]
    print_text(format_table(header, [[name, *(f"{counts[key]:,}" for key in _COUNTS)] for name, counts in rows]))
    totals = count_rows(recovery.rows)
    print_text(f"\nFound by equal bytes: {totals['by_bytes']:,}, by equal pixels: {totals['by_pixels']:,}.")
    _print_own_leak(report)
    _print_links(recovery)
    print_text(f"\nWritten: {', '.join(str(request.out_dir / table.path.name) for table in tables)}")
    if num_odd:
        print_text(f"Rows that need a look ({num_odd:,}): {request.out_dir / 'recovery.csv'}")


def _print_own_leak(report: AuditReport) -> None:
    told = [check for check in report.checks if check.key in _TOLD_CHECKS]
    if not mixed_shares(report):
        print_text("One table, one side: give train.csv and valid.csv together to see what the lab's split mixes.")
        return
    print_text("\nThe split of these tables:")
    for check in told:
        count_text = "" if check.count is None else f"{check.count:,}"
        print_text(f"{check.verdict:<10}{count_text:>8}  {check.text.strip()}")
    for side, (count, total) in mixed_shares(report).items():
        print_text(f"{side}: {count:,} of {total:,} images are of subjects who are on another side too")


def _print_links(recovery: Recovery) -> None:
    for names in recovery.untied:
        print_note(
            f"note: the reference shows identical images of subjects {', '.join(names)}, but none in these tables ties "
            "them; --join-linked writes them as one, so that no split parts them"
        )
