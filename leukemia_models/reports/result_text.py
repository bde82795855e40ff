"""Evaluated parts in a few lines each, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leukemia_models.evaluation.metrics import metric_title
from leukemia_models.reports.results import IMAGE, Results, cautions_of_parts, ranked_cautions


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
