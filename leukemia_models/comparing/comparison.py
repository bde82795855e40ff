"""Several runs side by side: judged runs in, the table of what differs and the paired differences out.

Two numbers with overlapping intervals may still differ surely: both networks meet the same easy and hard subjects. So
each pair that was judged on the same images is compared on the same draws of subjects (paired bootstrap). Pairs judged
on different images are not compared at all: the difference would be one of the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_models.comparing.compared_run import ComparedRun
from leukemia_models.comparing.cross_validation_files import OUT_OF_FOLD_PART
from leukemia_models.judging.bootstrap import PairedBootstrap, SubjectBootstrap, paired_bootstrap
from leukemia_models.judging.metrics import ClassificationMetrics
from leukemia_models.judging.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings

VALID_PART = "valid"


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Two runs on the same images.

    Parameters
    ----------
    first, second : str
        Labels of the runs; differences are first minus second.
    images, subjects : PairedBootstrap or None
        Differences of the metrics per image, and per subject; None where refused, or no subject is known.
    refusal : str or None
        Why the two cannot be compared.
    """

    first: str
    second: str
    images: PairedBootstrap | None = None
    subjects: PairedBootstrap | None = None
    refusal: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {
            "first": self.first,
            "second": self.second,
            "images": self.images.to_dict() if self.images else None,
            "subjects": self.subjects.to_dict() if self.subjects else None,
            "refusal": self.refusal,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several runs have in common, and what not.

    Parameters
    ----------
    runs : tuple of ComparedRun
        In the order in which they were named.
    settings : mapping of str to tuple
        Settings that are not the same in all runs: one value a run, None where a run does not have it.
    pairs : tuple of PairComparison
        Every two of the runs.
    """

    runs: tuple[ComparedRun, ...]
    settings: Mapping[str, tuple[Any, ...]]
    pairs: tuple[PairComparison, ...]

    @property
    def stamp(self) -> str:
        """The words under every figure: the runs' stamp where they share one, else whose is which, the worse first."""
        labels_of: dict[str, list[str]] = {}
        for run in sorted(self.runs, key=lambda run: not run.is_patient_mixed):
            labels_of.setdefault(run.stamp, []).append(run.label)
        if len(labels_of) == 1:
            return self.runs[0].stamp
        return "\n".join(f"{stamp}: {', '.join(labels)}" for stamp, labels in labels_of.items())

    @property
    def cautions(self) -> list[str]:
        """In plain sentences, what keeps the numbers from being compared or believed."""
        mixed = [run.label for run in self.runs if run.is_patient_mixed]
        sentences = []
        if mixed:
            sentences.append(
                f"{', '.join(mixed)}: patients are mixed. These numbers do not say how the networks do on new "
                "patients; there they are clearly lower."
            )
            if len(mixed) < len(self.runs):
                sentences.append("Runs with and without mixed patients must not be ranked against each other.")
        if len({frozenset(run.samples.ids) for run in self.runs}) > 1:
            sentences.append(
                "The runs were judged on different images, so differences in the table may be those of the images."
            )
        unknown = [run.label for run in self.runs if not _knows_pixels(run)]
        if unknown:
            sentences.append(
                f"{', '.join(unknown)}: an earlier version wrote no pixel digests into split.csv. That images of the "
                "same id are the same pixels is taken on trust."
            )
        validated = [run.label for run in self.runs if run.part == VALID_PART]
        if validated:
            sentences.append(
                f"{', '.join(validated)}: judged on validation images, which chose the epoch and more. These numbers "
                "are a little too good; compare by --part test before you prefer one."
            )
        pooled = [run.label for run in self.runs if run.part == OUT_OF_FOLD_PART]
        if pooled:
            sentences.append(
                f"{', '.join(pooled)}: out-of-fold predictions of several networks. AUROC compares their probabilities "
                "with each other; the k-fold's own summary has the mean within each. Curves are means over folds."
            )
        num_pairs = sum(pair.refusal is None for pair in self.pairs)
        if num_pairs > 1:
            sentences.append(
                f"{num_pairs} pairs are compared, each with an interval of its own: with many pairs, one of them may "
                "lie apart from zero by chance."
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "stamp": self.stamp,
            "is_subject_disjoint": all(is_disjoint_stamp(run.stamp) for run in self.runs),
            "cautions": self.cautions,
            "runs": [_run_dict(run) for run in self.runs],
            "settings_that_differ": {name: list(values) for name, values in self.settings.items()},
            "pairs": [pair.to_dict() for pair in self.pairs],
        }


def compare_runs(runs: Sequence[ComparedRun], settings: BootstrapSettings = DEFAULT_BOOTSTRAP) -> Comparison:
    """Compare runs.

    Parameters
    ----------
    runs
        Two at least, with different labels.
    settings
        Of the paired bootstrap.

    Raises
    ------
    UsageError
        If there are fewer than two runs, or they answer with different classes or have different positive ones.
    """
    if len(runs) < 2:
        raise UsageError("name two runs or more to compare")
    for run in runs[1:]:
        if run.classes == runs[0].classes[::-1]:
            raise UsageError(
                f"{runs[0].label} and {run.label} have different positive classes: {runs[0].classes[1]} and "
                f"{run.classes[1]}. Their sensitivity, AUPRC and thresholds are not of the same class: compare runs "
                "that were trained with the same --positive"
            )
        if run.classes != runs[0].classes:
            raise UsageError(
                f"{runs[0].label} and {run.label} know different classes: {', '.join(runs[0].classes)} and "
                f"{', '.join(run.classes)}"
            )
    return Comparison(
        runs=tuple(runs),
        settings=differing_settings([run.settings for run in runs]),
        pairs=tuple(_compare_pair(first, second, settings) for first, second in combinations(runs, 2)),
    )


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the settings that are not the same in all runs, in the order in which they first appear."""
    names = dict.fromkeys(name for each in settings for name in each)
    rows = {name: tuple(each.get(name) for each in settings) for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _compare_pair(first: ComparedRun, second: ComparedRun, settings: BootstrapSettings) -> PairComparison:
    try:
        _require_same_pixels(first, second)
        images = paired_bootstrap(first.samples, second.samples, settings=settings, classes=first.classes)
        people = first.subject_samples, second.subject_samples
        subjects = None
        if people[0] is not None and people[1] is not None:
            subjects = paired_bootstrap(people[0], people[1], settings=settings, classes=first.classes)
    except UsageError as error:
        return PairComparison(first=first.label, second=second.label, refusal=str(error))
    return PairComparison(first=first.label, second=second.label, images=images, subjects=subjects)


def _require_same_pixels(first: ComparedRun, second: ComparedRun) -> None:
    """Raise UsageError where one id stands for different pixels in the two runs."""
    known = first.pixel_digests.keys() & second.pixel_digests.keys()
    other = [each for each in known if first.pixel_digests[each] != second.pixel_digests[each]]
    if other:
        raise UsageError(
            f"{len(other):,} images have other pixels in the one run than in the other, under the same id (first "
            f"{min(other)})"
        )


def _knows_pixels(run: ComparedRun) -> bool:
    return run.pixel_digests.keys() >= frozenset(run.samples.ids)


def _run_dict(run: ComparedRun) -> dict[str, Any]:
    level = run.subject_level
    return {
        "label": run.label,
        "path": str(run.path),
        "model_name": run.model_name,
        "num_parameters": run.num_parameters,
        "part": run.part,
        "positive": run.positive,
        "stamp": run.stamp,
        "is_patient_mixed": run.is_patient_mixed,
        "epochs_per_stage": [len(stage.epochs) for stage in run.stages],
        "images": _judged_dict(run.metrics, run.intervals),
        "subjects": _judged_dict(level.mean, run.subject_intervals),
    }


def _judged_dict(metrics: ClassificationMetrics | None, intervals: SubjectBootstrap | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    return {"metrics": metrics.to_dict(), "bootstrap": intervals.to_dict() if intervals else None}
