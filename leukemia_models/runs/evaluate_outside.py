"""Judge a run's network on an outside set of labelled images, and write down what the set shares with the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from leukemia_data.errors import RunError, UsageError
from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.samples.sample_table import SampleTable
from leukemia_data.splitting.outside_check import (
    ANOTHER_SOURCE_STAMP,
    NOT_COMPARED_STAMP,
    OutsideCheck,
    OwnedImage,
    check_outside,
)
from leukemia_data.splitting.seen_samples import Naming, meets, near_seen
from leukemia_data.splitting.split_spec import SPLIT_NAMES
from leukemia_models.judging.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.judging.subject_counts import subjects_per_class
from leukemia_models.learning.checkpoint import Checkpoint, CheckpointInfo
from leukemia_models.reports.judged_table import results_of_table, write_judged
from leukemia_models.reports.report import Results
from leukemia_models.reports.split_summary import SplitCounts, SplitSummary
from leukemia_models.runs.file_predictions import FilePredictions, predict_files
from leukemia_models.runs.file_tables import FileTable, table_of_files
from leukemia_models.runs.judge import Watch, judged_network, judging_tta, unwatched
from leukemia_models.runs.judged_identity import require_no_other_files, written_results
from leukemia_models.runs.known_samples import LEARNT_PARTS, KnownSamples, learnt_text
from leukemia_models.runs.outside_set import OutsideSet
from leukemia_models.runs.run_files import RunFolder
from leukemia_models.runs.split_cache import TEST
from leukemia_models.runs.start_weights import seen_by_checkpoint

KIND = "outside"
"""The kind of split that reports name."""


@dataclass(frozen=True)
class OutsideResults:
    """What a network is judged to be on an outside set.

    Attributes
    ----------
    results
        As of a part.
    num_known
        How many images of the set are images of each part of the run.
    failures
        Ids of images that could not be used, and are not judged.
    """

    results: Results
    num_known: dict[str, int]
    failures: tuple[str, ...]


def evaluate_outside(
    checkpoint: Checkpoint,
    outside: OutsideSet,
    known: KnownSamples,
    out_dir: Path,
    *,
    device: torch.device,
    batch_size: int,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
    watch: Watch = unwatched,
    tell: Callable[[str], None] | None = None,
    for_excel: bool = False,
) -> OutsideResults:
    """Judge a checkpoint on an outside set as on a test part, and write everything about it into `out_dir`.

    Parameters
    ----------
    checkpoint
        Its ``judging`` says how images are shown, and with which temperature and threshold.
    outside
        From :func:`~leukemia_models.runs.outside_set.read_outside_set`.
    known
        The samples of the run.
    out_dir
        Is made if it does not exist.
    tell
        Told of each file that cannot be used; such files are left out.

    Raises
    ------
    RunError
        If no image can be used, or `out_dir` holds results of something else.
    UsageError
        If no image that can be used has a label.
    """
    require_own_folder(out_dir, outside)
    tta = judging_tta(checkpoint.info.judging)
    found = predict_files(
        outside.rows, checkpoint, device=device, batch_size=batch_size, tta=tta, watch=watch, tell=tell
    )
    info = checkpoint.info
    joined = table_of_files(found, known, info.classes, info.positive, outside.labels)
    numbers = found.predictions.indices_N.tolist()
    check = _with_start(_check(found, outside, known, numbers), checkpoint.info, found, outside, known, numbers)
    network = judged_network(checkpoint, TEST)
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
    write_judged(out_dir, results, table, for_excel=for_excel)
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
    path = out_dir / "results.json"
    if not path.is_file():
        return
    written = written_results(path)
    earlier = (written.get("judging") or {}).get(KIND)
    if not isinstance(earlier, dict) or any(earlier.get(name) != value for name, value in _described(outside).items()):
        what = f"the part {written['split'].get('judged')}" if earlier is None else "other images, or read otherwise"
        raise RunError(f"{out_dir} holds the results of {what}: say with --out where these go")


def require_no_part_folder(out_dir: Path, part: str | None = None) -> None:
    """Refuse a folder that belongs to a run: its own, or that of another part than the judged one.

    Parameters
    ----------
    out_dir
        Where results are to go.
    part
        The judged part of the same run; None for an outside set.

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
    judged = [
        OwnedImage(found.digests[number], outside.rows[number].record.subject, outside.labels[number])
        for number in numbers
        if outside.labels[number] != UNKNOWN_LABEL
    ]
    if not judged:
        raise UsageError("none of the images that can be used has a label to evaluate by")
    learnt = [OwnedImage(sample.digest, sample.subject, sample.label) for sample in known.in_parts(LEARNT_PARTS)]
    subjects = outside.reading.subjects
    return check_outside(
        judged,
        learnt,
        judged_subjects_from=subjects.sources,
        learnt_subjects_from=known.subjects_from,
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
    digests, subjects = {sample.digest for sample in learnt}, {sample.subject for sample in learnt} - {""}
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
        yield f"{len(found.problems):,} of {len(found.rows):,} images could not be used and are not judged."
