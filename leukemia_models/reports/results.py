"""Results of an evaluated part: ``results.json``, cautions and lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, cast

from leukemia_data.errors import RunError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import parse_json
from leukemia_data.sources.positive_class import positive_of
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.evaluation.bootstrap import SubjectBootstrap
from leukemia_models.evaluation.calibration import Calibration
from leukemia_models.evaluation.classification import ClassificationMetrics, MajorityBaseline
from leukemia_models.evaluation.evaluated_samples import MAX_LISTED_CLASSES, subject_counts_text
from leukemia_models.evaluation.metrics import metric_title
from leukemia_models.evaluation.resampling import ENOUGH_SUBJECTS, Interval
from leukemia_models.evaluation.subject_level import SubjectLevel
from leukemia_models.reports.style import number_text


@dataclass(frozen=True)
class SplitCounts:
    """Sizes of one part of a split; ``subjects_per_class`` is None if the source does not name subjects."""

    images_per_class: tuple[int, ...]
    subjects_per_class: tuple[int, ...] | None


@dataclass(frozen=True)
class SplitSummary:
    """The split of a run, and its evaluated part.

    Parameters
    ----------
    kind : str
        Name of the split, such as ``subject``, ``image``, ``given``, ``fold:1/5``.
    leaks : LeakCheck
        Overlap of its parts.
    judged : str
        The evaluated part, such as ``valid`` or ``test``.
    parts : mapping of str to SplitCounts
        ``train``, ``valid``, ``test``, and the evaluated part if it is another one.
    num_trained : int
        Evaluated images that the network was trained on, as in the parts ``train`` and ``all``.
    """

    kind: str
    leaks: LeakCheck
    judged: str
    parts: Mapping[str, SplitCounts]
    num_trained: int = 0

    @property
    def stamp(self) -> str:
        """The stamp for all tables, figures and pages."""
        return part_stamp(self.leaks, self.num_trained)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the stamp as JSON can hold them."""
        return {**asdict(self), "stamp": self.stamp}


def part_stamp(leaks: LeakCheck, num_trained: int) -> str:
    """Return the stamp of an evaluated part; with training images it is never disjoint."""
    if not num_trained:
        return leaks.stamp
    return f"TRAINING IMAGES ({num_trained:,} of the evaluated ones; the split is {leaks.stamp})"


PUBLISHED_RANGE = "C-NMC 2019: 0.83 to 0.91 weighted F1"
"""Published results on unseen patients."""
ORDER = (
    *("mixed", "started", "labels", "other", "collapsed", "unknown"),
    *("origin", "namesakes", "doubtful", "alike", "few", "calibration"),
)
"""Kinds of cautions, the most important first."""


@dataclass(frozen=True, slots=True)
class Caution:
    """A sentence that limits the meaning of results; ``kind`` is one of :data:`ORDER`."""

    kind: str
    text: str


def split_cautions(split: SplitSummary, classes: Sequence[str]) -> Iterator[Caution]:
    """Yield the cautions of a split and its evaluated part, in any order."""
    leaks, counts = split.leaks, split.parts[split.judged].subjects_per_class
    if leaks.shared_subjects or leaks.shared_images or leaks.near_images:
        yield Caution(
            "mixed",
            "PATIENT-MIXED: cells of the same patients train and are evaluated, which says nothing about new patients "
            f"({PUBLISHED_RANGE}).",
        )
    if leaks.start_subjects or leaks.start_images:
        yield Caution(
            "started",
            "PATIENT-MIXED: the initial weights have seen validation or test subjects, which says nothing about new "
            f"patients ({PUBLISHED_RANGE}).",
        )
    yield from start_cautions(leaks)
    if leaks.contradictory_images:
        yield Caution("labels", f"{leaks.contradictory_images} groups of identical images have several labels.")
    if leaks.near_contradictions:
        yield Caution("labels", f"{leaks.near_contradictions} groups of near-identical images have several labels.")
    if leaks.doubtful_subjects:
        yield Caution(
            "doubtful",
            f"{leaks.doubtful_subjects} subjects have images of several classes: if they are not people, patients may "
            "be on both sides; a build with --subject-column, --subject-from or --subject-pattern confirms them.",
        )
    if leaks.alike_subjects:
        yield Caution(
            "alike",
            f"{leaks.alike_subjects} subjects are written in several ways, such as P1 and p1: patients may be on both "
            "sides; a build with --subject-column, --subject-from or --subject-pattern confirms them.",
        )
    if counts is None or leaks.unknown_subjects:
        whose = "the evaluated images" if counts is None else "some other images"
        yield Caution("unknown", f"The subjects of {whose} are unknown: the same patients may train and be evaluated.")
    if counts is not None and min(counts) < ENOUGH_SUBJECTS:
        listed = subject_counts_text(counts, classes)
        yield Caution("few", f"Few subjects, {listed}: other patients can give quite different numbers.")


def start_cautions(leaks: LeakCheck) -> Iterator[Caution]:
    """Yield cautions about initial weights of which too little is known."""
    if leaks.unknown_start:
        yield Caution("origin", "Start weights of unknown origin: whether they saw test subjects is not known.")
    if leaks.start_namesakes:
        yield Caution(
            "namesakes",
            f"{leaks.start_namesakes} validation or test subjects have the name of one that the start weights saw in "
            "another source: if these are the same people, the numbers say nothing about new patients.",
        )


def sorted_cautions(found: Sequence[Caution]) -> list[Caution]:
    """Return cautions without repetitions, the most important first."""
    return sorted(dict.fromkeys(found), key=lambda caution: ORDER.index(caution.kind))


def cautions_of_parts(found: Mapping[str, Sequence[Caution]]) -> list[str]:
    """Return the cautions of several evaluated parts of one run, each kind once.

    The text is that of the last part; a caution of only some parts begins with their names.
    """
    lines: dict[str, str] = {}
    for caution in sorted_cautions([caution for part in reversed(list(found)) for caution in found[part]]):
        having = [part for part in found if _key(caution) in map(_key, found[part])]
        text = caution.text if len(having) == len(found) else f"{', '.join(having)}: {caution.text}"
        lines.setdefault(_key(caution), text)
    return list(lines.values())


def _key(caution: Caution) -> str:
    """Return what is equal for the same caution of different parts."""
    return caution.text if caution.kind == "other" else caution.kind


FORMAT_VERSION = 2
"""2 added subjects, intervals, calibration, settings of the evaluation, and more metrics."""
IMAGE, SUBJECT_MEAN, SUBJECT_VOTE = "image", "subject_mean", "subject_vote"
_VALUE_KINDS: Mapping[str, type | tuple[type, ...]] = {"model_name": str, "settings": dict, "epoch": (int, NoneType)}


@dataclass(frozen=True, kw_only=True)
class CalibratedResults:
    """Metrics per image, with intervals, after applying a temperature and a threshold fitted on another part."""

    calibration: Calibration
    metrics: ClassificationMetrics
    bootstrap: SubjectBootstrap

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        values: dict[str, Calibration | ClassificationMetrics | SubjectBootstrap] = vars(self)
        return {name: value.to_dict() for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of an evaluated part.

    Parameters
    ----------
    classes : tuple of str
        All other values are in this order; of two the negative and the positive class.
    settings : mapping
        Settings of the run, as JSON values.
    epoch : int or None
        The epoch of the evaluated weights; None for several networks.
    metrics : ClassificationMetrics
        Per image, at the threshold 0.5 and without temperature.
    subjects : SubjectLevel or None
        Metrics per subject.
    intervals : mapping of str to SubjectBootstrap
        By ``image``, ``subject_mean`` and ``subject_vote``, as far as evaluated.
    calibrated : CalibratedResults or None
        None on the part that calibration was fitted on, or without calibration.
    judging : mapping
        Settings of the evaluation, as JSON values: checkpoint, test-time augmentation, BatchNorm statistics.
    identity : mapping of str to str
        Digests of the evaluated ``weights`` and ``samples``; empty for several networks.
    notes, warnings : tuple of str
        Sentences for readers; warnings become cautions.
    """

    model_name: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    split: SplitSummary
    epoch: int | None
    metrics: ClassificationMetrics
    baseline: MajorityBaseline
    subjects: SubjectLevel | None = None
    intervals: Mapping[str, SubjectBootstrap] = field(default_factory=dict)
    calibrated: CalibratedResults | None = None
    judging: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def positive(self) -> str | None:
        """The positive class of two; None of more."""
        return positive_of(self.classes)

    @property
    def title(self) -> str:
        """Network, epoch and part, for pages and figures."""
        epoch = "" if self.epoch is None else f", epoch {self.epoch}"
        return f"{self.model_name}{epoch}: {self.split.judged} images"

    def interval(self, level: str, metric: str) -> Interval | None:
        """Return the interval of a metric; None if there is none."""
        bootstrap = self.intervals.get(level)
        return bootstrap.intervals.get(metric) if bootstrap else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "format_version": FORMAT_VERSION,
            **vars(self),
            "positive": self.positive,
            "split": self.split.to_dict(),
            "metrics": self.metrics.to_dict(),
            "baseline": self.baseline.to_dict(),
            "subjects": self.subjects.to_dict() if self.subjects else None,
            "intervals": {level: bootstrap.to_dict() for level, bootstrap in self.intervals.items()},
            "calibrated": self.calibrated.to_dict() if self.calibrated else None,
            "cautions": cautions(self),
        }


def cautions(results: Results) -> list[str]:
    """Return the sentences of :func:`ranked_cautions`."""
    return [caution.text for caution in ranked_cautions(results)]


def ranked_cautions(results: Results) -> list[Caution]:
    """Return the cautions of results, the most important first."""
    found = list(split_cautions(results.split, results.classes))
    found += [Caution("other", text) for text in results.warnings]
    if results.metrics.one_class_warning:
        found.append(Caution("collapsed", f"{results.metrics.one_class_warning}."))
    if results.calibrated is not None and results.calibrated.calibration.note:
        found.append(Caution("calibration", results.calibrated.calibration.note))
    return sorted_cautions(found)


def read_results(path: Path) -> dict[str, Any]:
    """Read a ``results.json``, as JSON values.

    Returns
    -------
    dict
        At least ``model_name`` (str), ``classes`` (str; of two the second is the positive class), ``settings`` (dict),
        ``epoch`` (int or None) and ``split`` (dict with the str ``kind`` and ``stamp``).

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"there is no {path}: evaluate the run first, with `ltrain evaluate`") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    wrong = _wrong_value(content)
    if wrong:
        raise RunError(f"{path} is damaged ({wrong}): evaluate the run again")
    return cast(dict[str, Any], content)


def _wrong_value(content: object) -> str:
    """Return what is wrong with the first wrong value that :func:`read_results` promises; "" if none is wrong."""
    if not isinstance(content, dict):
        return "it is no JSON object"
    classes, split = content.get("classes"), content.get("split")
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if not is_list or not 2 <= len(set(cast(list[str], classes))) == len(cast(list[str], classes)):
        return "classes are not two or more different names"
    if not isinstance(split, dict) or not all(isinstance(split.get(name), str) for name in ("kind", "stamp")):
        return "split has no kind and stamp"
    for name, kinds in _VALUE_KINDS.items():
        value = content.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"{name} is {value!r:.40}"
    return ""


def write_results(path: Path, results: Results) -> None:
    """Write ``results.json``, atomically; undefined numbers are null."""
    write_text(path, json.dumps(results.to_dict(), indent=2, allow_nan=False) + "\n")


def results_text(results: Mapping[str, Results]) -> str:
    """Return the text of all evaluated parts of a run, then their cautions, each once."""
    parts = [result_text(part, result) for part, result in results.items()]
    found = {part: ranked_cautions(result) for part, result in results.items()}
    return "\n".join([*parts, *(f"caution: {line}" for line in cautions_of_parts(found))])


def result_text(part: str, results: Results) -> str:
    """Return one evaluated part in a few lines, without cautions."""
    return "\n".join(_result_lines(part, results))


def _result_lines(part: str, results: Results) -> Iterator[str]:
    metrics, subjects = results.metrics, results.subjects
    epoch = "" if results.epoch is None else f", epoch {results.epoch}"
    names = ("sensitivity", "specificity") if len(results.classes) == 2 else ("mcc",)
    recall = ", ".join(f"{metric_title(name, results.classes)} {number_text(metrics.values()[name])}" for name in names)
    always = f"always the {'larger' if len(results.classes) == 2 else 'largest'} class"
    yield f"{part} ({metrics.num_samples:,} images{epoch}, {results.split.stamp}):"
    yield f"  balanced accuracy {metric_text(results, 'balanced_accuracy')}, {recall}"
    yield (
        f"  weighted F1 {metric_text(results, 'weighted_f1')} ({always}: "
        f"{results.baseline.weighted_f1:.3f}), macro F1 {number_text(metrics.macro_f1)}, "
        f"AUROC {metric_text(results, 'auroc')}"
    )
    if subjects is not None and subjects.mean is not None:
        yield f"  per subject (mean probability): {_right_text(results.classes, subjects.mean.confusion)} right"
    if results.calibrated is not None:
        calibration, after = results.calibrated.calibration, results.calibrated.metrics
        changes = (
            f"{title} {number_text(metrics.values()[name])} -> {number_text(after.values()[name])}"
            for title, name in (("NLL", "nll"), ("ECE", "ece"), ("balanced accuracy", "balanced_accuracy"))
        )
        yield (
            f"  calibrated (temperature {calibration.temperature:.3f}, threshold {calibration.threshold:.3f}): "
            f"{', '.join(changes)}"
        )
    if batchnorm := results.judging.get("batchnorm"):
        tta = results.judging.get("tta", {"views": "none"})
        views = tta["views"] if tta["views"] == "none" else f"{tta['views']}, mean of {tta['average']}"
        mode = batchnorm.get("mode", batchnorm["chosen"])
        yield f"  BatchNorm statistics: {batchnorm['chosen']} ({mode}); views of an image: {views}"


def _right_text(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    rows = list(enumerate(zip(classes, confusion, strict=True)))
    if len(classes) > MAX_LISTED_CLASSES:
        num_right = sum(row[label] for label, (_, row) in rows)
        return f"{num_right} of {sum(sum(row) for row in confusion)}"
    return " and ".join(f"{row[label]} of {sum(row)} {name}" for label, (name, row) in rows)


def metric_text(results: Results, name: str) -> str:
    """Return a metric per image with its interval, such as ``0.912 (0.871 to 0.944)``."""
    text, interval = number_text(results.metrics.values()[name]), results.interval(IMAGE, name)
    return text if interval is None else f"{text} ({interval.low:.3f} to {interval.high:.3f})"
