"""Results as values: metrics, subjects and splits in, results.json, cautions and lines for people out."""

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
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.evaluation.bootstrap import SubjectBootstrap
from leukemia_models.evaluation.calibration import Calibration
from leukemia_models.evaluation.metrics import ClassificationMetrics, MajorityBaseline, metric_title
from leukemia_models.evaluation.resampling import ENOUGH_SUBJECTS
from leukemia_models.evaluation.subject_level import SubjectLevel


@dataclass(frozen=True)
class SplitCounts:
    """How much one part of a split holds.

    Parameters
    ----------
    images_per_class : tuple of int
        One number per class.
    subjects_per_class : tuple of int or None
        None where the source does not name subjects.
    """

    images_per_class: tuple[int, ...]
    subjects_per_class: tuple[int, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"images_per_class": self.images_per_class, "subjects_per_class": self.subjects_per_class}


@dataclass(frozen=True)
class SplitSummary:
    """How a run's data were split.

    Parameters
    ----------
    kind : str
        As the user named it: ``subject``, ``image``, ``given``, ``fold:1/5``.
    leaks : LeakCheck
        What stands on two sides of it.
    judged : str
        The part that was evaluated, such as ``valid`` or ``test``.
    parts : mapping of str to SplitCounts
        ``train``, ``valid``, ``test``.
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
        """The words that go on every table, figure and page."""
        return part_stamp(self.leaks, self.num_trained)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the stamp as JSON can hold them."""
        parts = {name: counts.to_dict() for name, counts in self.parts.items()}
        return {**vars(self), "leaks": asdict(self.leaks), "parts": parts, "stamp": self.stamp}


def part_stamp(leaks: LeakCheck, num_trained: int) -> str:
    """Return the stamp of an evaluated part, never disjoint where it holds images that the network was trained on."""
    if not num_trained:
        return leaks.stamp
    return f"TRAINING IMAGES ({num_trained:,} of the evaluated ones; the split is {leaks.stamp})"


PUBLISHED_RANGE = "C-NMC 2019: 0.83 to 0.91 weighted F1"
"""What is published for unseen patients."""
ORDER = (
    "mixed",
    "started",
    "labels",
    "other",
    "collapsed",
    "unknown",
    "origin",
    "namesakes",
    "doubtful",
    "alike",
    "few",
    "calibration",
)
"""Kinds of cautions, the most important first."""


@dataclass(frozen=True, slots=True)
class Caution:
    """One line that speaks against numbers.

    Attributes
    ----------
    kind
        One of :data:`ORDER`. Several parts of one run have the same cautions of the same kinds, in other numbers.
    text
        A sentence.
    """

    kind: str
    text: str


def split_cautions(split: SplitSummary, classes: Sequence[str]) -> Iterator[Caution]:
    """Yield what speaks against a split and its evaluated part, in any order."""
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
            "PATIENT-MIXED: the weights that the training started from have seen validation or test subjects, which "
            f"says nothing about new patients ({PUBLISHED_RANGE}).",
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
        listed = " and ".join(f"{count} of class {name!r}" for count, name in zip(counts, classes, strict=True))
        yield Caution("few", f"Few subjects, {listed}: other patients can give quite different numbers.")


def start_cautions(leaks: LeakCheck) -> Iterator[Caution]:
    """Yield what may be wrong with the weights that a training starts from, and cannot be known."""
    if leaks.unknown_start:
        yield Caution("origin", "Start weights of unknown origin: whether they saw test subjects is not known.")
    if leaks.start_namesakes:
        yield Caution(
            "namesakes",
            f"{leaks.start_namesakes} validation or test subjects have the name of one that the start weights saw in "
            "another source: if these are the same people, the numbers say nothing about new patients.",
        )


def sorted_cautions(found: Sequence[Caution]) -> list[Caution]:
    """Return cautions once each, the most important first."""
    return sorted(dict.fromkeys(found), key=lambda caution: ORDER.index(caution.kind))


def cautions_of_parts(found: Mapping[str, Sequence[Caution]]) -> list[str]:
    """Return the cautions of several evaluated parts of one run, each kind once.

    Parameters
    ----------
    found
        Cautions of each part, the part to quote last: where parts differ in their numbers alone, its words are taken.

    Returns
    -------
    list of str
        With the part's name in front where only some parts have that caution.
    """
    lines: dict[str, str] = {}
    for caution in sorted_cautions([caution for part in reversed(list(found)) for caution in found[part]]):
        having = [part for part in found if _key(caution) in map(_key, found[part])]
        text = caution.text if len(having) == len(found) else f"{', '.join(having)}: {caution.text}"
        lines.setdefault(_key(caution), text)
    return list(lines.values())


def _key(caution: Caution) -> str:
    """What makes two cautions of different parts the same one."""
    return caution.text if caution.kind == "other" else caution.kind


FORMAT_VERSION = 2
"""2 added subjects, intervals, calibration and how the network was evaluated, and more metrics."""
IMAGE, SUBJECT_MEAN, SUBJECT_VOTE = "image", "subject_mean", "subject_vote"
LEVELS = (IMAGE, SUBJECT_MEAN, SUBJECT_VOTE)
_VALUE_KINDS: Mapping[str, type | tuple[type, ...]] = {"model_name": str, "settings": dict, "epoch": (int, NoneType)}


@dataclass(frozen=True, kw_only=True)
class CalibratedResults:
    """The same predictions with a temperature and a threshold that were fitted on another part.

    Parameters
    ----------
    calibration : Calibration
        The two numbers.
    metrics : ClassificationMetrics
        Per image.
    bootstrap : SubjectBootstrap
        Their intervals.
    """

    calibration: Calibration
    metrics: ClassificationMetrics
    bootstrap: SubjectBootstrap

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "calibration": self.calibration.to_dict(),
            "metrics": self.metrics.to_dict(),
            "bootstrap": self.bootstrap.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an evaluation of a run came to.

    Parameters
    ----------
    model_name : str
        Name of the network.
    classes : tuple of two str
        The negative and the positive class, in this order in all that follows.
    settings : mapping
        What the run was told, as JSON values.
    split : SplitSummary
        How the data were split.
    epoch : int or None
        The epoch whose weights were evaluated; None where several networks were.
    metrics : ClassificationMetrics
        Of the evaluated part, per image, at the threshold 0.5 and without temperature.
    baseline : MajorityBaseline
        Of the same part.
    subjects : SubjectLevel or None
        The same per subject; None where it was not asked for.
    intervals : mapping of str to SubjectBootstrap
        By :data:`LEVELS`; a level that was not evaluated is absent.
    calibrated : CalibratedResults or None
        None on the part that calibration was fitted on, or where there was none to fit on.
    judging : mapping
        How the network was evaluated, as JSON values: checkpoint, test-time augmentation, BatchNorm statistics.
    identity : mapping of str to str
        Digests by which the evaluated network and samples are known again: ``weights`` and ``samples``. Empty where
        several networks were evaluated.
    notes : tuple of str
        What a reader should know that does not speak against the numbers.
    warnings : tuple of str
        Anything else that speaks against the numbers.
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
    def positive(self) -> str:
        """The positive class: sensitivity is its recall, thresholds and curves are of its probability."""
        return self.classes[1]

    @property
    def title(self) -> str:
        """Network, epoch and part, for pages and figures."""
        epoch = "" if self.epoch is None else f", epoch {self.epoch}"
        return f"{self.model_name}{epoch}: {self.split.judged} images"

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
    """Return, a line each, what keeps the numbers from saying how the network does on new patients."""
    return [caution.text for caution in ranked_cautions(results)]


def ranked_cautions(results: Results) -> list[Caution]:
    """Return the same with their kinds, the most important first."""
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
        At least ``model_name`` (a text), ``classes`` (two texts, the second is the positive class), ``settings`` (an
        object), ``epoch`` (a number or None) and ``split`` (an object with the texts ``kind`` and ``stamp``).

    Raises
    ------
    RunError
        If it is missing or cannot be read, or one of these is not there or something else.
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
    """Name the first of the values that every reader counts on which is not what it should be; "" where all are."""
    if not isinstance(content, dict):
        return "it is no JSON object"
    classes, split = content.get("classes"), content.get("split")
    has_two_classes = isinstance(classes, list) and len(classes) == 2 and classes[0] != classes[1]
    if not has_two_classes or not all(isinstance(name, str) for name in cast(list[object], classes)):
        return "classes are not two different names"
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
    """Return all evaluated parts of a run, then what speaks against their numbers, once each."""
    parts = [result_text(part, result) for part, result in results.items()]
    found = {part: ranked_cautions(result) for part, result in results.items()}
    return "\n".join([*parts, *(f"caution: {line}" for line in cautions_of_parts(found))])


def result_text(part: str, results: Results) -> str:
    """Return one evaluated part in a few lines, without cautions."""
    metrics = results.metrics
    epoch = "" if results.epoch is None else f", epoch {results.epoch}"
    recall = ", ".join(
        f"{metric_title(name, results.classes)} {_number(metrics.values()[name])}"
        for name in ("sensitivity", "specificity")
    )
    lines = [
        f"{part} ({metrics.num_samples:,} images{epoch}, {results.split.stamp}):",
        f"  balanced accuracy {_with_interval(results, 'balanced_accuracy')}, {recall}",
        f"  weighted F1 {_with_interval(results, 'weighted_f1')} (always the larger class: "
        f"{results.baseline.weighted_f1:.3f}), macro F1 {_number(metrics.macro_f1)}, "
        f"AUROC {_with_interval(results, 'auroc')}",
        *_subject_lines(results),
        *_calibration_lines(results),
        *_evaluation_lines(results),
    ]
    return "\n".join(lines)


def _with_interval(results: Results, name: str) -> str:
    bootstrap = results.intervals.get(IMAGE)
    interval = bootstrap.intervals.get(name) if bootstrap else None
    text = _number(results.metrics.values()[name])
    return text if interval is None else f"{text} ({interval.low:.3f} to {interval.high:.3f})"


def _subject_lines(results: Results) -> Iterator[str]:
    metrics = results.subjects.mean if results.subjects else None
    if metrics is None:
        return
    right = " and ".join(
        f"{row[label]} of {sum(row)} {name}"
        for label, (name, row) in enumerate(zip(results.classes, metrics.confusion, strict=True))
    )
    yield f"  per subject (mean probability): {right} right"


def _evaluation_lines(results: Results) -> Iterator[str]:
    judging = results.judging
    if "batchnorm" in judging:
        mode = judging["batchnorm"].get("mode", judging["batchnorm"]["chosen"])
        yield f"  BatchNorm statistics: {judging['batchnorm']['chosen']} ({mode}); views of an image: {_views(judging)}"


def _views(judging: Mapping[str, Any]) -> str:
    """Test-time augmentation of an evaluated network."""
    tta = judging.get("tta", {"views": "none"})
    return str(tta["views"]) if tta["views"] == "none" else f"{tta['views']}, mean of {tta['average']}"


def _calibration_lines(results: Results) -> Iterator[str]:
    if results.calibrated is None:
        return
    calibration, after, before = results.calibrated.calibration, results.calibrated.metrics, results.metrics
    yield (
        f"  calibrated (temperature {calibration.temperature:.3f}, threshold {calibration.threshold:.3f}): "
        f"NLL {_number(before.nll)} -> {_number(after.nll)}, ECE {_number(before.ece)} -> {_number(after.ece)}, "
        f"balanced accuracy {_number(before.balanced_accuracy)} -> {_number(after.balanced_accuracy)}"
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
