"""The part of ``ldata audit`` that reads, compares, prints and draws."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import cv2

from cli.output import print_json, print_note, print_reading, print_text
from cli.progress import progress_bar
from leukemia_data.auditing.audit import AuditReport, audit_images, frame_finding_check
from leukemia_data.auditing.audit_image import AuditImage, Check
from leukemia_data.auditing.audit_input import (
    cache_audit_images,
    inspect_records,
    reference_audit_images,
    training_split,
)
from leukemia_data.auditing.audit_pairs import MAX_CELLS, AuditPair, brought_sides, find_near_pairs
from leukemia_data.auditing.audit_report import (
    AuditArgument,
    blind_spots,
    conclusion,
    report_json,
    training_outlook,
    write_findings,
)
from leukemia_data.auditing.reference_index import read_reference_table, reference_classes
from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache, choose_cache_dir, find_cache_dirs, open_cache
from leukemia_data.decoding.decode import decode_rgb
from leukemia_data.decoding.source_file import read_file
from leukemia_data.errors import ImageError, SourceError
from leukemia_data.files.atomic import write_text
from leukemia_data.operations.filter_pixels import Image
from leukemia_data.records.record import CELL_CLASSES, ImagePlace
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.split_spec import DEFAULT_SPLIT, parse_split

_VERDICT_WIDTH = 10
_COUNT_WIDTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """A checked command line; ``max_distance`` is None where near duplicates are not looked for."""

    inputs: tuple[ImagePlace, ...]
    references: tuple[Path, ...]
    root: ImagePlace | None
    allow_outside: bool
    size_px: int | None
    split_name: str | None
    split_seed: int
    max_distance: int | None
    num_threads: int
    out: Path | None
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(slots=True)
class _Material:
    """What was read so far."""

    arguments: list[AuditArgument] = field(default_factory=list)
    images: list[AuditImage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    caches: dict[int, Cache] = field(default_factory=dict)
    classes: tuple[str, ...] = CELL_CLASSES
    seen_files: set[str] = field(default_factory=set)
    subjects: list[SubjectsFound | None] = field(default_factory=list)
    frame_checks: list[Check] = field(default_factory=list)

    @property
    def only_subjects(self) -> SubjectsFound | None:
        """How the subjects were read, where there is one argument only."""
        return self.subjects[0] if len(self.subjects) == 1 else None

    @property
    def are_confirmed(self) -> bool:
        """Whether the user said what a subject is, in every argument that has some."""
        known = [found for found in self.subjects if found is None or found.count]
        return bool(known) and all(found is not None and found.is_confirmed for found in known)


def audit_and_report(request: AuditRequest, *, as_json: bool, strict: bool) -> None:
    """Run the audit, print the verdicts, and write the files if a folder was named.

    Raises
    ------
    SourceError
        With `strict`, after everything was printed and written, if a leak was found.
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    split = None if request.split_name is None else parse_split(request.split_name)
    if request.out is not None:
        request.out.mkdir(parents=True, exist_ok=True)
    material = _collect(request)
    sides = brought_sides(material.images, [argument.name for argument in material.arguments])
    stamps: list[Check] = []
    given = material.images, request.split_seed, material.classes, material.only_subjects
    training = None if split is None else training_split(split, *given)
    if training is not None:
        sides, stamps = [*sides, training.sides], [training.stamp]
    # Of several arguments nobody can say what a training would be given.
    outlook = None
    if len(material.arguments) == 1:
        outlook = training_outlook(split or parse_split(DEFAULT_SPLIT), *given, split=training)
    near, reason = _find_near(request, material.images)
    report = audit_images(material.images, sides, near=near, near_missing=reason, are_confirmed=material.are_confirmed)
    report = replace(report, checks=[*report.checks, *material.frame_checks, *stamps])
    notes = [*material.notes, *blind_spots(material.arguments, material.images)]
    written = [] if request.out is None else _write(request.out, report, material, notes)
    sentences = conclusion(report.checks, outlook)
    if as_json:
        told = report_json(report, material.arguments, notes)
        print_json({**told, "conclusion": sentences, "files": [str(path) for path in written]})
    else:
        _print(report, material.arguments, sentences, notes, written)
    if strict and report.has_leak:
        leaks = [check.key for check in report.checks if check.verdict == "LEAK"]
        raise SourceError(f"the audit found leaks ({', '.join(leaks)}), and --strict was given")


def _collect(request: AuditRequest) -> _Material:
    material = _Material()
    for path in request.inputs:
        if isinstance(path, Path) and find_cache_dirs(path):
            _add_cache(material, choose_cache_dir(path, size_px=request.size_px))
        else:
            _add_source(material, path, request)
    for path in request.references:
        rows = read_reference_table(path)
        material.classes = reference_classes(rows)
        _add(
            material,
            AuditArgument(str(path), "table", "table of names"),
            reference_audit_images(rows, argument=len(material.arguments)),
        )
    return material


def _add_cache(material: _Material, directory: Path) -> None:
    cache = open_cache(directory)
    number = len(material.arguments)
    with progress_bar(len(cache), "hashing the cache") as bar:
        images = cache_audit_images(cache, argument=number, progress=bar.update)
    material.caches[number] = cache
    material.classes = cache.manifest.classes
    material.subjects.append(cache.manifest.subjects)
    if not cache.manifest.has_looks:
        material.notes.append(f"{directory}: {WITHOUT_LOOKS}")
    understood = cache.manifest.understood
    if understood is not None and understood.frame_finding is not None:
        material.frame_checks.append(frame_finding_check(understood.frame_finding))
    text = f"cache, recipe {cache.manifest.recipe.name}, {cache.size_px} px"
    _add(material, AuditArgument(str(directory), "cache", text), images)


def _add_source(material: _Material, path: ImagePlace, request: AuditRequest) -> None:
    listing = list_source(
        [path],
        root=request.root,
        allow_outside=request.allow_outside,
        options=request.reading,
        # Of several arguments each is read by itself, and an option may be meant for another one.
        allow_unmatched=len(request.inputs) > 1,
    )
    print_reading(listing.reading.short_lines(with_notes=False))
    material.notes.extend(listing.notes)
    material.subjects.append(listing.reading.subjects)
    records = []
    for record in listing.records:
        # The lab's three test tables list the same files; one file is one image.
        # Path.resolve would ask the disk for each part.
        place = record.path
        file = os.path.normcase(os.path.abspath(place)) if isinstance(place, Path) else str(place)  # noqa: PTH100
        if file not in material.seen_files:
            material.seen_files.add(file)
            records.append(record)
    num_again = len(listing.records) - len(records)
    if num_again:
        material.notes.append(f"{path}: {num_again:,} files were given before and are not taken twice")
    with progress_bar(len(records), "reading images") as bar:
        images = inspect_records(
            records,
            listing.classes,
            argument=len(material.arguments),
            with_sha256=bool(request.references),
            num_threads=request.num_threads,
            progress=bar.update,
        )
    material.classes = listing.classes
    _add(material, AuditArgument(str(path), "source", "source"), images)


def _add(material: _Material, argument: AuditArgument, images: list[AuditImage]) -> None:
    material.arguments.append(argument)
    material.images.extend(images)


def _find_near(request: AuditRequest, images: Sequence[AuditImage]) -> tuple[list[AuditPair] | None, str]:
    """Pairs that look alike, or why they were not looked for."""
    if request.max_distance is None:
        return None, "--no-near was given"
    numbers = [number for number, image in enumerate(images) if image.cell_print is not None]
    prints = [image.cell_print for image in images if image.cell_print is not None]
    if not prints:
        return None, "there are no pixels to look at"
    if len(prints) > MAX_CELLS:
        return None, f"{len(prints):,} cells are more than the {MAX_CELLS:,} that can be compared with each other"
    with progress_bar(len(prints), "comparing cells") as bar:
        found = find_near_pairs(prints, max_distance=request.max_distance, progress=bar.update)
    return [AuditPair(numbers[p.first], numbers[p.second], p.distance, p.correlation) for p in found], ""


def _write(out: Path, report: AuditReport, material: _Material, notes: Sequence[str]) -> list[Path]:
    # matplotlib takes a second to load.
    from leukemia_data.auditing.audit_sheet import draw_balance, draw_findings

    write_findings(out / "findings.csv", report, material.arguments)
    content = json.dumps(report_json(report, material.arguments, notes), indent=2, ensure_ascii=True)
    write_text(out / "audit.json", f"{content}\n")
    draw_balance(report, out / "balance.png")
    written = [out / "findings.csv", out / "audit.json", out / "balance.png"]

    def load(image: AuditImage) -> Image | None:
        return _load_pixels(image, material.caches)

    if draw_findings(report, load, out / "findings.png"):
        written.append(out / "findings.png")
    else:
        # That of an earlier audit would pass for this one's.
        (out / "findings.png").unlink(missing_ok=True)
    return written


def _load_pixels(image: AuditImage, caches: dict[int, Cache]) -> Image | None:
    if image.row >= 0:
        return caches[image.argument].reader.image(image.row)
    if image.path is None:
        return None
    try:
        return decode_rgb(read_file(image.path).data)
    except ImageError:
        # What can be shown of a black frame needs no picture.
        return None


def _print(
    report: AuditReport,
    arguments: Sequence[AuditArgument],
    sentences: Sequence[str],
    notes: Sequence[str],
    written: Sequence[Path],
) -> None:
    for number, argument in enumerate(arguments):
        count = sum(image.argument == number for image in report.images)
        print_text(f"{argument.name} ({argument.text}): {count:,} images")
    click.echo()
    for check in report.checks:
        count_text = "" if check.count is None else f"{check.count:,}"
        print_text(f"{check.verdict:<{_VERDICT_WIDTH}}{count_text:>{_COUNT_WIDTH}}  {check.text}")
    click.echo()
    for sentence in sentences:
        print_text(sentence)
    for note in notes:
        print_note(f"note: {note}")
    if written:
        print_text(f"Written: {', '.join(str(path) for path in written)}")
