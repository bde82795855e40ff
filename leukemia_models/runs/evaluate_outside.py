"""Evaluate a run's network on labelled images from outside."""

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
from leukemia_data.sources.positive_class import known_positive, place_of_class
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

_LONGEST_NAME = 60
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class OutsideSet:
    """Images that a run is evaluated on and was not split from.

    Attributes
    ----------
    name
        For folders and pages: ``outside-`` and the names of its sources.
    places
        Its sources, absolute.
    rows
        One an image, in the order of the ids.
    labels
        One a row: position in the run's classes, or -1.
    reading
        How the sources were understood.
    """

    name: str
    places: tuple[str, ...]
    rows: tuple[ImageRow, ...]
    labels: tuple[int, ...]
    reading: Reading

    @property
    def lines(self) -> list[str]:
        """The reading for people; which class is the positive one is the run's affair."""
        return [line for line in self.reading.lines() if not line.startswith("positive class: ")]


def read_outside_set(
    paths: Sequence[ImagePlace],
    classes: Sequence[str],
    positive: str,
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    options: ReadingOptions | None = None,
) -> OutsideSet:
    """List an outside set.

    Parameters
    ----------
    paths, root, allow_outside, options
        As for :func:`leukemia_data.sources.source.list_source`, whose errors it raises.
    classes
        Those of the run. A class of the set is the run's class of the same name, without regard to case and accents'
        composition (:func:`~leukemia_data.sources.classes.place_of_class`); nothing else is mapped.
    positive
        The run's positive class; options may name no other one.

    Raises
    ------
    UsageError
        If the options name another positive class, images are of a class that the run has not got, two classes of the
        set are one of the run, or no image has a label.
    """
    if options is not None and options.positive not in (None, positive):
        raise UsageError(f"--positive {options.positive}: the run's positive class is {positive}, as it was trained")
    listing = list_source(
        paths,
        root=root,
        allow_outside=allow_outside,
        options=None if options is None else replace(options, positive=None),
    )
    place_of = _matched([name for name, count in listing.reading.classes if count], classes, positive)
    place_of_label = {label: place_of[name] for label, name in enumerate(listing.classes) if name in place_of} | {
        UNKNOWN_LABEL: UNKNOWN_LABEL
    }
    if not place_of:
        raise UsageError(
            f"no image of {listed(map(str, paths))} has a label to evaluate by: use `ltrain predict`, or say with "
            "--class-level or --label-column where labels are"
        )
    return OutsideSet(
        name=_name(paths),
        places=tuple(str(path.resolve()) if isinstance(path, Path) else str(path) for path in paths),
        rows=tuple(
            ImageRow(record, _class_name(record.label, listing.classes), file_key(record.path))
            for record in listing.records
        ),
        labels=tuple(place_of_label[record.label] for record in listing.records),
        reading=listing.reading,
    )


def _class_name(label: int, classes: Sequence[str]) -> str | None:
    return None if label == UNKNOWN_LABEL else classes[label]


def _matched(names: Sequence[str], classes: Sequence[str], positive: str) -> dict[str, int]:
    """The run's class of each class of the set."""
    found = {name: place_of_class(name, classes) for name in names}
    strange = [name for name, place in found.items() if place is None]
    if strange:
        raise UsageError(
            f"the run has no class {listed(strange)}; its classes are {listed(classes)}. "
            f"{_cure(strange, names, classes, positive)}"
        )
    known = {name: place for name, place in found.items() if place is not None}
    if len(set(known.values())) < len(known):
        raise UsageError(f"several of the classes {listed(names)} are one class of the run: join them with --merge")
    return known


def _cure(strange: Sequence[str], names: Sequence[str], classes: Sequence[str], positive: str) -> str:
    """Options that would say what the strange classes mean. An example must not name the healthy ones diseased."""
    order = (*(name for name in classes if name != positive), positive)
    chosen = ReadingOptions(classes=order).command_text
    if are_numbers(strange) and max(map(int, strange)) < len(classes):
        meaning = ", ".join(f"{number} {name}" for number, name in enumerate(order))
        return f"{chosen} makes of the numbers {meaning}"
    told = known_positive(names)
    if told is None or len(order) != len(names):
        example = ReadingOptions(merge=((positive, ("NAME",)),)).command_text
        return f"Say what each means, as {example}; {chosen} leaves others out"
    meant = [(positive if name == told.name else order[0], (name,)) for name in names if name in strange]
    return f"Say what each means, such as {ReadingOptions(merge=tuple(meant)).command_text}; {chosen} leaves others out"


def _name(paths: Sequence[ImagePlace]) -> str:
    """The names of the sources, as part of a file's name."""
    places = [path.resolve() if isinstance(path, Path) else path for path in paths]
    names = [place.stem if place.suffix.lower() == ".csv" else place.name for place in places]
    joined = _NOT_IN_FILE_NAMES.sub("-", "-".join(names)).strip("-.")[:_LONGEST_NAME]
    return f"outside-{joined or 'images'}"


KIND = "outside"
"""The kind of split that reports name."""


@dataclass(frozen=True)
class OutsideResults:
    """What an evaluation on an outside set comes to.

    Attributes
    ----------
    results
        As of a part.
    num_known
        How many images of the set are images of each part of the run.
    failures
        Ids of images that could not be used, and are not evaluated.
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
    """Evaluate a network on an outside set as on a test part, and write everything about it into `out_dir`.

    Parameters
    ----------
    predictor
        The network; the ``judging`` of its checkpoint says with which temperature and threshold it is evaluated. Its
        console gets a line for each file that cannot be used; such files are left out.
    outside
        From :func:`~leukemia_models.runs.evaluate_outside.read_outside_set`.
    known
        The samples of the run.
    out_dir
        Is made if it does not exist.

    Raises
    ------
    RunError
        If no image can be used, or `out_dir` holds results of something else.
    UsageError
        If no image that can be used has a label.
    """
    require_own_folder(out_dir, outside)
    found, info = predict_files(outside.rows, predictor), predictor.checkpoint.info
    joined = table_of_files(found, known, info.classes, info.positive, outside.labels)
    numbers = found.predictions.indices_N.tolist()
    check = _with_start(_check(found, outside, known, numbers), info, found, outside, known, numbers)
    network = evaluated_network(predictor.checkpoint, TEST)
    order = [info.classes.index(name) for name in network.classes]
    summary = SplitSummary(KIND, check, outside.name, _parts(known, outside, numbers, order))
    network = replace(
        network,
        judging={**(network.judging or {}), KIND: _described(outside)},
        notes=(*network.notes, *_notes(joined, check)),
        warnings=(*network.warnings, *_warnings(joined, check, found)),
    )
    table = joined.table.iloc[numbers].drop(columns="problem", errors="ignore").reset_index(drop=True)
    results = results_of_table(table, summary, network, bootstrap=bootstrap)
    write_evaluated(out_dir, results, table, for_excel=for_excel)
    failures = tuple(found.rows[number].record.record_id for number in found.problems)
    return OutsideResults(results, dict(joined.num_known), failures)


def require_own_folder(out_dir: Path, outside: OutsideSet) -> None:
    """Refuse to write over results of a part, or of another outside set, or of the same files read otherwise.

    Raises
    ------
    RunError
        If `out_dir` holds them.
    """
    require_no_other_files(out_dir)
    path = out_dir / RESULTS_NAME
    if not path.is_file():
        return
    written = written_results(path)
    earlier = (written.get("judging") or {}).get(KIND)
    if not isinstance(earlier, dict) or any(earlier.get(name) != value for name, value in _described(outside).items()):
        what = f"the part {written['split'].get('judged')}" if earlier is None else "other images, or read otherwise"
        raise RunError(f"{out_dir} holds the results of {what}: say with --out where these go")


def require_no_part_folder(out_dir: Path, part: str | None = None) -> None:
    """Refuse a folder that belongs to a run: its own, or that of another part than the evaluated one.

    Parameters
    ----------
    out_dir
        Where results are to go.
    part
        The evaluated part of the same run; None for an outside set.

    Raises
    ------
    UsageError
        If it is one of these.
    """
    place = out_dir.resolve()
    is_part = RunFolder(place.parent).is_run and place.name.partition("-")[0] in (*SPLIT_NAMES, "all")
    if RunFolder(place).is_run or (is_part and (part is None or place.name.partition("-")[0] != part)):
        raise UsageError(f"--out {out_dir} belongs to a run's own results: choose another folder")


def _described(outside: OutsideSet) -> dict[str, object]:
    return {"images": list(outside.places), "reading": outside.reading.options.to_dict()}


def _check(found: FilePredictions, outside: OutsideSet, known: KnownSamples, numbers: Sequence[int]) -> OutsideCheck:
    evaluated = [
        OwnedImage(found.digests[number], outside.rows[number].record.subject, outside.labels[number])
        for number in numbers
        if outside.labels[number] != UNKNOWN_LABEL
    ]
    if not evaluated:
        raise UsageError("none of the images that can be used has a label to evaluate by")
    learnt = [OwnedImage(sample.pixel_digest, sample.subject, sample.label) for sample in known.in_parts(LEARNT_PARTS)]
    subjects = outside.reading.subjects
    return check_outside(
        evaluated,
        learnt,
        outside_subjects_from=subjects.sources,
        trained_subjects_from=known.subjects_from,
        is_confirmed=subjects.is_confirmed,
    )


def _with_start(
    check: OutsideCheck,
    info: CheckpointInfo,
    found: FilePredictions,
    outside: OutsideSet,
    known: KnownSamples,
    numbers: Sequence[int],
) -> OutsideCheck:
    """Add near-identical copies of all that the weights have seen, and what they had seen before the run."""
    learnt = known.in_parts(LEARNT_PARTS)
    digests, subjects = {sample.pixel_digest for sample in learnt}, {sample.subject for sample in learnt} - {""}
    rest = [
        number
        for number in numbers
        if found.digests[number] not in digests and outside.rows[number].record.subject not in subjects
    ]
    table = SampleTable.from_records([outside.rows[number].record for number in rest])
    for row, number in enumerate(rest):
        if found.digests[number]:
            table.pixel_digests[row] = np.frombuffer(bytes.fromhex(found.digests[number]), np.uint8)
    seen = seen_by_checkpoint(info)
    # Identical ones are counted as such.
    others = np.array([number for number in numbers if found.digests[number] not in digests], np.intp)
    naming = Naming(outside.name, "; ".join(outside.reading.subjects.sources))
    before = meets(seen, table, np.full(len(rest), SPLIT_NAMES.index(TEST), np.int8), naming)
    return replace(
        check,
        near_images=int(near_seen(seen, found.looks_N64[others]).sum()),
        start_subjects=before.subjects,
        start_images=before.images,
        unknown_start=int(not before.is_known),
        start_namesakes=before.namesakes,
    )


def _parts(
    known: KnownSamples, outside: OutsideSet, numbers: Sequence[int], order: Sequence[int]
) -> dict[str, SplitCounts]:
    owners = {name: [(sample.label, sample.subject) for sample in known.in_parts([name])] for name in SPLIT_NAMES}
    owners[outside.name] = [(outside.labels[number], outside.rows[number].record.subject) for number in numbers]
    return {name: _counts(pairs, order) for name, pairs in owners.items()}


def _counts(pairs: Sequence[tuple[int, str]], order: Sequence[int]) -> SplitCounts:
    """Count images and subjects of each label, in this order of the labels."""
    labelled = [pair for pair in pairs if pair[0] != UNKNOWN_LABEL]
    images = Counter(label for label, _ in labelled)
    labels_N = np.array([label for label, _ in labelled], np.int64)
    subjects = subjects_per_class(labels_N, [subject for _, subject in labelled], len(order))
    people = None if subjects is None else tuple(subjects[label] for label in order)
    return SplitCounts(tuple(images[label] for label in order), people)


def _notes(joined: FileTable, check: OutsideCheck) -> Iterator[str]:
    num_test = joined.num_known.get(TEST, 0)
    if num_test:
        yield f"{num_test:,} of {len(joined.table):,} images are in the run's own test part."


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
            "Whether images of this set are among the training images could not be compared: the run knows no pixel "
            "digests and its cache is not there (--cache says where it is)."
        )
    if check.stamp == ANOTHER_SOURCE_STAMP:
        yield (
            "No image and no subject's name is in both this set and the run, but names of two sources say nothing "
            "about people: whether the same patients are in both is for you to know."
        )
    if found.problems:
        yield f"{len(found.problems):,} of {len(found.rows):,} images could not be used and are not evaluated."
