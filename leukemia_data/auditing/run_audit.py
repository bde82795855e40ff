"""Run an audit: read and compare caches, sources and tables of names, and write the findings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from leukemia_data.auditing.audit import AuditReport, audit_images, frame_finding_check
from leukemia_data.auditing.audit_image import AuditImage, Check
from leukemia_data.auditing.audit_input import cache_audit_images, inspect_records, training_split
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
from leukemia_data.caches.cache import WITHOUT_LOOKS, Cache
from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice, find_caches, open_chosen_cache
from leukemia_data.console import NULL_CONSOLE, Console, tracked
from leukemia_data.decoding.decode import decode_rgb, one_opencv_thread, read_file
from leukemia_data.errors import ImageError, UsageError
from leukemia_data.files.atomic import remove_file, write_text
from leukemia_data.operations.operation import Image
from leukemia_data.records.record import CELL_CLASSES, ImagePlace, Record
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source
from leukemia_data.splitting.split_spec import DEFAULT_SPLIT, SplitSpec, parse_split


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A finished audit.

    Attributes
    ----------
    report
        All findings.
    arguments
        The audited inputs; an image's ``argument`` is an index into it.
    conclusion
        Sentences on the verdicts and on the training's split.
    notes
        What could not be checked, and remarks on the arguments.
    files
        Files written.
    """

    report: AuditReport = field(repr=False)
    arguments: tuple[AuditArgument, ...]
    conclusion: tuple[str, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def leaks(self) -> list[str]:
        """Keys of the checks that found a leak."""
        return [check.key for check in self.report.checks if check.verdict == "LEAK"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; lists of findings are in ``findings.csv`` only."""
        found = report_json(self.report, self.arguments, self.notes)
        return {**found, "conclusion": list(self.conclusion), "files": [str(path) for path in self.files]}


def audit(
    inputs: Sequence[ImagePlace],
    *,
    references: Sequence[Path] = (),
    reading: ReadingOptions | None = None,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    size_px: int | None = None,
    copies: LocalCopiesChoice = DEFAULT_COPIES,
    split: str | None = None,
    seed: int = 0,
    max_distance: int | None = 10,
    num_threads: int | None = None,
    out: Path | None = None,
    console: Console = NULL_CONSOLE,
) -> Audit:
    """Audit caches, sources and tables of names: leaks, near duplicates, wrong labels, balance, odd frames.

    Parameters
    ----------
    inputs, references, reading, root, allow_outside, split, seed, max_distance, out
        As for :func:`leukemia_data.audit`.
    size_px, copies
        Side of the images, to choose among several caches; where shards of a cache in a store are copied to.
    num_threads
        Images decoded in parallel; None for one per core.
    console
        Receives notes on how sources are read, and the progress.

    Raises
    ------
    UsageError
        If there is no argument, the split is none of the images', or there are several arguments with a split.
    SourceError, CacheError, StorageError
        If an argument cannot be read.
    """
    if not inputs and not references:
        raise UsageError("there is nothing to audit: give a cache, a source or a table of names")
    if split is not None and len(inputs) + len(references) != 1:
        raise UsageError("--split is checked on one cache, source or table: give one")
    spec = None if split is None else parse_split(split)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    # With several arguments, a reading option may be meant for another one.
    read_source = partial(
        list_source, root=root, allow_outside=allow_outside, options=reading, allow_unmatched=len(inputs) > 1
    )
    with one_opencv_thread(), ExitStack() as stack:
        material = _Material(num_threads or os.cpu_count() or 1, console)
        for place in inputs:
            if find_caches(place):
                material.add_cache(stack.enter_context(open_chosen_cache(place, copies, size_px=size_px)))
            else:
                material.add_source(place, read_source([place]), with_sha256=bool(references))
        for table in references:
            material.add_reference(table)
        return _audit(material, spec, seed, max_distance, out)


@dataclass(slots=True)
class _Material:
    """The inputs read so far."""

    num_threads: int
    console: Console
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
        """How the subjects of the only argument were read."""
        return self.subjects[0] if len(self.subjects) == 1 else None

    @property
    def are_confirmed(self) -> bool:
        """Whether the user confirmed the subjects of every argument that has any."""
        known = [found for found in self.subjects if found is None or found.count]
        return bool(known) and all(found is not None and found.is_confirmed for found in known)

    def add_cache(self, cache: Cache) -> None:
        number, manifest = len(self.arguments), cache.manifest
        images = cache_audit_images(cache, argument=number, console=self.console)
        self.caches[number] = cache
        self.classes = manifest.classes
        self.subjects.append(manifest.subjects)
        if not manifest.has_looks:
            self.notes.append(f"{cache.location}: {WITHOUT_LOOKS}")
        understood = manifest.understood
        if understood is not None and understood.frame_finding is not None:
            self.frame_checks.append(frame_finding_check(understood.frame_finding))
        text = f"cache, recipe {manifest.recipe.name}, {cache.size_px} px"
        self._add(AuditArgument(str(cache.location), "cache", text), images)

    def add_source(self, place: ImagePlace, listing: SourceListing, *, with_sha256: bool) -> None:
        for line in listing.reading.short_lines(with_notes=False):
            self.console.note(line if line.startswith("note: ") else f"  {line}")
        self.notes.extend(listing.notes)
        self.subjects.append(listing.reading.subjects)
        records = self._new(listing.records)
        if num_again := len(listing.records) - len(records):
            self.notes.append(f"{place}: {num_again:,} files were given before and are not taken twice")
        images = inspect_records(
            records,
            listing.classes,
            argument=len(self.arguments),
            with_sha256=with_sha256,
            num_threads=self.num_threads,
        )
        self.classes = listing.classes
        shown = tracked(images, self.console, len(records), "reading images")
        self._add(AuditArgument(str(place), "source", "source"), shown)

    def add_reference(self, table: Path) -> None:
        images = read_reference_table(table, argument=len(self.arguments))
        self.classes = reference_classes(images)
        self._add(AuditArgument(str(table), "table", "table of names"), images)

    def _new(self, records: Iterable[Record]) -> list[Record]:
        """Records of files not seen before: the lab's three test tables list the same ones."""
        new = []
        for record in records:
            place = record.path
            # Path.resolve would access the disk for each part.
            file = os.path.normcase(os.path.abspath(place)) if isinstance(place, Path) else str(place)  # noqa: PTH100
            if file not in self.seen_files:
                self.seen_files.add(file)
                new.append(record)
        return new

    def _add(self, argument: AuditArgument, images: Iterable[AuditImage]) -> None:
        self.arguments.append(argument)
        self.images.extend(images)


def _audit(
    material: _Material, split: SplitSpec | None, seed: int, max_distance: int | None, out: Path | None
) -> Audit:
    images = material.images
    sides = brought_sides(images, [argument.name for argument in material.arguments])
    stamps: list[Check] = []
    given = images, seed, material.classes, material.only_subjects
    training = None if split is None else training_split(split, *given)
    if training is not None:
        sides, stamps = [*sides, training.sides], [training.stamp]
    # With several arguments it is unknown which one a training would use.
    outlook = None
    if len(material.arguments) == 1:
        outlook = training_outlook(split or parse_split(DEFAULT_SPLIT), *given, split=training)
    near, reason = _find_near(images, max_distance, material.console)
    report = audit_images(images, sides, near=near, near_missing=reason, are_confirmed=material.are_confirmed)
    report = replace(report, checks=[*report.checks, *material.frame_checks, *stamps])
    notes = (*material.notes, *blind_spots(material.arguments, images))
    return Audit(
        report=report,
        arguments=tuple(material.arguments),
        conclusion=tuple(conclusion(report.checks, outlook)),
        notes=notes,
        files=() if out is None else _write(out, report, material, notes),
    )


def _find_near(
    images: Sequence[AuditImage], max_distance: int | None, console: Console
) -> tuple[list[AuditPair] | None, str]:
    """Return similar pairs, or why they were not searched."""
    if max_distance is None:
        return None, "--no-near was given"
    seen = [(number, image.cell_print) for number, image in enumerate(images) if image.cell_print is not None]
    if not seen:
        return None, "there are no pixels to look at"
    if len(seen) > MAX_CELLS:
        return None, f"{len(seen):,} cells are more than the {MAX_CELLS:,} that can be compared with each other"
    with console.progress(len(seen), "comparing cells") as bar:
        found = find_near_pairs([one for _, one in seen], max_distance=max_distance, progress=bar.update)
    return [AuditPair(seen[p.first][0], seen[p.second][0], p.distance, p.correlation) for p in found], ""


def _write(out: Path, report: AuditReport, material: _Material, notes: Sequence[str]) -> tuple[Path, ...]:
    # Importing matplotlib takes a second.
    from leukemia_data.auditing.audit_sheet import draw_balance, draw_findings

    names = ("findings.csv", "audit.json", "balance.png", "findings.png")
    table, summary, balance, pictures = (out / name for name in names)
    write_findings(table, report, material.arguments)
    content = json.dumps(report_json(report, material.arguments, notes), indent=2, ensure_ascii=True)
    write_text(summary, f"{content}\n")
    draw_balance(report, balance)
    if draw_findings(report, lambda image: _load_pixels(image, material.caches), pictures):
        return table, summary, balance, pictures
    # Remove that of an earlier audit.
    remove_file(pictures)
    return table, summary, balance


def _load_pixels(image: AuditImage, caches: dict[int, Cache]) -> Image | None:
    if image.row >= 0:
        return caches[image.argument].reader.image(image.row)
    if image.path is None:
        return None
    try:
        return decode_rgb(read_file(image.path).data)
    except ImageError:
        # A black frame needs no picture.
        return None
