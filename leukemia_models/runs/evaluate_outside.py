"""Evaluate a run's network on labelled images from outside the run's cache."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leukemia_data.errors import RunError, UsageError, listed
from leukemia_data.records.record import UNKNOWN_LABEL, ImagePlace
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.image_rows import ImageRow, file_key
from leukemia_data.sources.name_words import are_numbers
from leukemia_data.sources.positive_class import evaluated_order, known_positive, place_of_class
from leukemia_data.sources.reading import Reading
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.splitting.leaks import (
    ANOTHER_SOURCE_STAMP,
    NOT_COMPARED_STAMP,
    OutsideCheck,
    OwnedImage,
    check_outside,
)
from leukemia_data.splitting.seen_samples import Naming, meets, near_seen
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_models.evaluation.evaluated_samples import subjects_per_class
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.reports.results import Results, SplitCounts, SplitSummary
from leukemia_models.reports.summary_page import results_of_table, write_evaluated
from leukemia_models.runs.evaluate_part import (
    Predictor,
    evaluated_network,
    require_no_other_files,
    written_results,
)
from leukemia_models.runs.predict_files import FilePredictions, FileTable, predict_files, table_of_files
from leukemia_models.runs.run_folder import RESULTS_NAME, RunFolder
from leukemia_models.runs.run_split import LEARNT_PARTS, TEST, KnownSamples, learnt_text
from leukemia_models.runs.start_weights import seen_by_checkpoint
from leukemia_models.training.checkpoint import CheckpointInfo

KIND = "outside"
"""Kind of split in reports."""


@dataclass(frozen=True, kw_only=True)
class OutsideSet:
    """Labelled images that are not from the run's cache.

    Attributes
    ----------
    name
        ``outside-`` and the names of its sources, for folders and pages.
    places
        Its sources, absolute.
    rows
        One per image, in the order of the ids.
    labels
        Per row: position in the run's classes, or -1.
    """

    name: str
    places: tuple[str, ...]
    rows: tuple[ImageRow, ...]
    labels: tuple[int, ...]
    reading: Reading

    @property
    def lines(self) -> list[str]:
        """The reading as text, without the positive class, which is that of the run."""
        return [line for line in self.reading.lines() if not line.startswith("positive class: ")]


def read_outside_set(
    paths: Sequence[ImagePlace],
    classes: Sequence[str],
    positive: str | None,
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    options: ReadingOptions | None = None,
) -> OutsideSet:
    """List the images of an outside set, with their labels in the run's classes.

    Parameters
    ----------
    paths, root, allow_outside, options
        As for :func:`leukemia_data.sources.source.list_source`, whose errors it raises.
    classes
        Those of the run. Classes of the set are mapped to them by equal names
        (:func:`~leukemia_data.sources.positive_class.place_of_class`).
    positive
        The run's positive class; None of more than two classes.

    Raises
    ------
    UsageError
        If the options name another positive class, the run lacks a class of the set, two classes of the set are one of
        the run, or no image has a label.
    """
    if options is not None and options.positive not in (None, positive):
        trained = "none of the run's classes is the positive one"
        trained = trained if positive is None else f"the run's positive class is {positive}"
        raise UsageError(f"--positive {options.positive}: {trained}, as it was trained")
    given = None if options is None else replace(options, positive=None)
    listing = list_source(paths, root=root, allow_outside=allow_outside, options=given)
    place_of = _matched([name for name, count in listing.reading.classes if count], classes, positive)
    if not place_of:
        raise UsageError(
            f"no image of {listed(map(str, paths))} has a label to evaluate by: use `ltrain predict`, or name with "
            "--class-level or --label-column where labels are"
        )
    rows, labels = [], []
    for record in listing.records:
        name = None if record.label == UNKNOWN_LABEL else listing.classes[record.label]
        rows.append(ImageRow(record, name, file_key(record.path)))
        labels.append(UNKNOWN_LABEL if name is None else place_of[name])
    places = [path.resolve() if isinstance(path, Path) else path for path in paths]
    return OutsideSet(
        name=_name(places),
        places=tuple(map(str, places)),
        rows=tuple(rows),
        labels=tuple(labels),
        reading=listing.reading,
    )


def _matched(names: Sequence[str], classes: Sequence[str], positive: str | None) -> dict[str, int]:
    """Return the position in the run's classes of each class of the set."""
    found = {name: place_of_class(name, classes) for name in names}
    unmatched = [name for name, place in found.items() if place is None]
    if unmatched:
        raise UsageError(
            f"the run has no class {listed(unmatched)}; its classes are {listed(classes)}. "
            f"{_advice(unmatched, names, classes, positive)}"
        )
    known = {name: place for name, place in found.items() if place is not None}
    if len(set(known.values())) < len(known):
        raise UsageError(f"several of the classes {listed(names)} are one class of the run: join them with --merge")
    return known


def _advice(unmatched: Sequence[str], names: Sequence[str], classes: Sequence[str], positive: str | None) -> str:
    """Return options that map unmatched classes; an example must not map a healthy class to a diseased one."""
    order = evaluated_order(classes, positive)
    chosen = ReadingOptions(classes=order).command_text
    if are_numbers(unmatched) and max(map(int, unmatched)) < len(classes):
        meaning = ", ".join(f"{number} {name}" for number, name in enumerate(order))
        return f"{chosen} makes of the numbers {meaning}"
    known = known_positive(names)
    if known is None or len(order) != len(names):
        merge: tuple[tuple[str, tuple[str, ...]], ...] = ((order[-1], ("NAME",)),)
    else:
        merge = tuple((order[-1] if name == known.name else order[0], (name,)) for name in names if name in unmatched)
    return f"Say what each means, such as {ReadingOptions(merge=merge).command_text}; {chosen} leaves others out"


def _name(places: Sequence[ImagePlace]) -> str:
    names = [place.stem if place.suffix.lower() == ".csv" else place.name for place in places]
    joined = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(names)).strip("-.")[:60]
    return f"outside-{joined or 'images'}"


@dataclass(frozen=True)
class OutsideResults:
    """An evaluation on an outside set.

    Attributes
    ----------
    num_known
        How many images of the set are images of each part of the run.
    failures
        Ids of unusable images, which are not evaluated.
    """

    results: Results
    num_known: dict[str, int]
    failures: tuple[str, ...]


def evaluate_outside(
    predictor: Predictor,
    outside: OutsideSet,
    known: KnownSamples,
    out_dir: Path,
    *,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    for_excel: bool = False,
) -> OutsideResults:
    """Evaluate a network on an outside set as on a test part, and write page, tables and figures into `out_dir`.

    Parameters
    ----------
    predictor
        Its console gets a line for each unusable file; these are left out.
    known
        The samples of the run.

    Raises
    ------
    RunError
        If no image can be used, or `out_dir` holds other results.
    UsageError
        If no usable image has a label.
    """
    _require_own_folder(out_dir, outside)
    found, info = predict_files(outside.rows, predictor), predictor.checkpoint.info
    joined = table_of_files(found, known, info.classes, info.positive, outside.labels)
    used = found.predictions.indices_N.tolist()
    check = _with_seen(_check(found, outside, known), info, found, outside, known)
    network = evaluated_network(predictor.checkpoint, TEST)
    order = [info.classes.index(name) for name in network.classes]
    summary = SplitSummary(KIND, check, outside.name, _parts(known, outside, used, order))
    num_test = joined.num_known.get(TEST, 0)
    note = f"{num_test:,} of {len(joined.table):,} images are in the run's own test part."
    network = replace(
        network,
        judging={**(network.judging or {}), KIND: _described(outside)},
        notes=(*network.notes, *([note] if num_test else [])),
        warnings=(*network.warnings, *_warnings(joined, check, found)),
    )
    table = joined.table.iloc[used].drop(columns="problem", errors="ignore").reset_index(drop=True)
    results = results_of_table(table, summary, network, bootstrap=bootstrap)
    write_evaluated(out_dir, results, table, for_excel=for_excel)
    failures = tuple(found.rows[index].record.record_id for index in found.problems)
    return OutsideResults(results, dict(joined.num_known), failures)


def _require_own_folder(out_dir: Path, outside: OutsideSet) -> None:
    """Raise a RunError if a folder holds results of a part, another outside set, or the same files read otherwise."""
    require_no_other_files(out_dir)
    path = out_dir / RESULTS_NAME
    if not path.is_file():
        return
    written = written_results(path)
    earlier = (written.get("judging") or {}).get(KIND)
    if not isinstance(earlier, dict) or any(earlier.get(name) != value for name, value in _described(outside).items()):
        what = f"the part {written['split'].get('judged')}" if earlier is None else "other images, or read otherwise"
        raise RunError(f"{out_dir} holds the results of {what}: choose another folder with --out")


def require_no_part_folder(out_dir: Path, part: str | None = None) -> None:
    """Raise a UsageError if a folder for results is a run's own, or that of another part.

    `part` is the evaluated part; None for an outside set.
    """
    place = out_dir.resolve()
    is_part = RunFolder(place.parent).is_run and place.name.partition("-")[0] in (*SPLIT_NAMES, "all")
    if RunFolder(place).is_run or (is_part and (part is None or place.name.partition("-")[0] != part)):
        raise UsageError(f"--out {out_dir} belongs to a run's own results: choose another folder")


def _described(outside: OutsideSet) -> dict[str, object]:
    return {"images": list(outside.places), "reading": outside.reading.options.to_dict()}


def _check(found: FilePredictions, outside: OutsideSet, known: KnownSamples) -> OutsideCheck:
    evaluated = [
        OwnedImage(found.digests[index], outside.rows[index].record.subject, outside.labels[index])
        for index in found.predictions.indices_N.tolist()
        if outside.labels[index] != UNKNOWN_LABEL
    ]
    if not evaluated:
        raise UsageError("none of the usable images has a label to evaluate by")
    learnt = [OwnedImage(sample.pixel_digest, sample.subject, sample.label) for sample in known.in_parts(LEARNT_PARTS)]
    subjects = outside.reading.subjects
    return check_outside(
        evaluated,
        learnt,
        outside_subjects_from=subjects.sources,
        trained_subjects_from=known.subjects_from,
        is_confirmed=subjects.is_confirmed,
    )


def _with_seen(
    check: OutsideCheck, info: CheckpointInfo, found: FilePredictions, outside: OutsideSet, known: KnownSamples
) -> OutsideCheck:
    """Count near-identical copies of images that the weights have seen, and the overlap with their earlier training."""
    learnt = known.in_parts(LEARNT_PARTS)
    digests, subjects = {sample.pixel_digest for sample in learnt}, {sample.subject for sample in learnt} - {""}
    # Identical images are counted already.
    others = [index for index in found.predictions.indices_N.tolist() if found.digests[index] not in digests]
    rest = [index for index in others if outside.rows[index].record.subject not in subjects]
    table = SampleTable.from_records([outside.rows[index].record for index in rest])
    for row, index in enumerate(rest):
        if found.digests[index]:
            table.pixel_digests[row] = np.frombuffer(bytes.fromhex(found.digests[index]), np.uint8)
    seen = seen_by_checkpoint(info)
    naming = Naming(outside.name, "; ".join(outside.reading.subjects.sources))
    before = meets(seen, table, np.full(len(rest), SPLIT_NAMES.index(TEST), np.int8), naming)
    return replace(
        check,
        near_images=int(near_seen(seen, found.looks_N64[np.array(others, np.intp)]).sum()),
        start_subjects=before.subjects,
        start_images=before.images,
        unknown_start=int(not before.is_known),
        start_namesakes=before.namesakes,
    )


def _parts(
    known: KnownSamples, outside: OutsideSet, used: Sequence[int], order: Sequence[int]
) -> dict[str, SplitCounts]:
    owners = {name: [(sample.label, sample.subject) for sample in known.in_parts([name])] for name in SPLIT_NAMES}
    owners[outside.name] = [(outside.labels[index], outside.rows[index].record.subject) for index in used]
    return {name: _counts(pairs, order) for name, pairs in owners.items()}


def _counts(pairs: Sequence[tuple[int, str]], order: Sequence[int]) -> SplitCounts:
    """Count images and subjects of each label, in `order` of the labels."""
    labelled = [pair for pair in pairs if pair[0] != UNKNOWN_LABEL]
    images = Counter(label for label, _ in labelled)
    labels_N = np.array([label for label, _ in labelled], np.int64)
    subjects = subjects_per_class(labels_N, [subject for _, subject in labelled], len(order))
    people = None if subjects is None else tuple(subjects[label] for label in order)
    return SplitCounts(tuple(images[label] for label in order), people)


def _warnings(joined: FileTable, check: OutsideCheck, found: FilePredictions) -> Iterator[str]:
    learnt = learnt_text(joined.num_known)
    if learnt:
        yield f"Of {len(joined.table):,} images, {learnt}: the network has seen them."
    if check.shared_subjects:
        yield (
            f"{check.shared_subjects} subjects have the name of one that the network was trained on or chosen by. If "
            "they are other people, give them other names, as with --subject-column or --subject-pattern."
        )
    if check.stamp == NOT_COMPARED_STAMP:
        yield (
            "Images of this set could not be compared with the training images: the run has no pixel digests and its "
            "cache is missing (name it with --cache)."
        )
    if check.stamp == ANOTHER_SOURCE_STAMP:
        yield (
            "No image and no subject's name is in both this set and the run, but names of two sources say nothing "
            "about people: check yourself whether the same patients are in both."
        )
    if found.problems:
        yield f"{len(found.problems):,} of {len(found.rows):,} images could not be used and are not evaluated."
