"""What a run is judged to be, as values: metrics, subjects and splits in, ``results.json`` out.

No number appears without the kind of split behind it. Subjects, not images, are the sample size: the cautions say in
plain words when they are too few, unknown, or on both sides of the split. The page for people is written by
:mod:`leukemia_models.reports.summary_page`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, cast

from leukemia_data.errors import RunError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import parse_json
from leukemia_models.judging.baseline import MajorityBaseline
from leukemia_models.judging.bootstrap import SubjectBootstrap
from leukemia_models.judging.calibration import Calibration
from leukemia_models.judging.metrics import ClassificationMetrics
from leukemia_models.judging.subject_level import SubjectLevel
from leukemia_models.reports.cautions import Caution, sorted_cautions, split_cautions
from leukemia_models.reports.split_summary import SplitSummary

FORMAT_VERSION = 2
"""2 added subjects, intervals, calibration and how the network was judged, and more metrics."""
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
    """Everything a reader needs to judge a run.

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
        The epoch whose weights were judged; None where several networks were.
    metrics : ClassificationMetrics
        Of the judged part, per image, at the threshold 0.5 and without temperature.
    baseline : MajorityBaseline
        Of the same part.
    subjects : SubjectLevel or None
        The same per subject; None where it was not asked for.
    intervals : mapping of str to SubjectBootstrap
        By :data:`LEVELS`; a level that was not judged is absent.
    calibrated : CalibratedResults or None
        None on the part that calibration was fitted on, or where there was none to fit on.
    judging : mapping
        How the network was judged, as JSON values: checkpoint, test-time augmentation, BatchNorm statistics.
    identity : mapping of str to str
        Digests by which the judged network and samples are known again: ``weights`` and ``samples``. Empty where
        several networks were judged.
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
        raise RunError(f"there is no {path}: judge the run first, with `ltrain evaluate`") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    wrong = _wrong_value(content)
    if wrong:
        raise RunError(f"{path} is damaged ({wrong}): judge the run again")
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
