"""The written comparison of several runs: a comparison in; ``comparison.md``, ``.csv``, ``.json`` and figures out."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leukemia_data.errors import UsageError
from leukemia_data.files.atomic import write_text
from leukemia_models.comparing.compared_run import ComparedRun
from leukemia_models.comparing.comparison import Comparison, PairComparison
from leukemia_models.comparing.comparison_curves import draw_accuracies, draw_stage_accuracies, stage_names
from leukemia_models.comparing.comparison_figures import draw_confusions, draw_rocs, draw_subject_shares
from leukemia_models.comparing.cross_validation_files import is_kfold
from leukemia_models.judging.bootstrap import Difference, PairedBootstrap, SubjectBootstrap
from leukemia_models.judging.metrics import METRIC_NAMES, ClassificationMetrics, metric_title
from leukemia_models.judging.predictions import write_table
from leukemia_models.reports.figure_style import save_figure
from leukemia_models.reports.markdown import code, markdown_table, plain, without_repeats
from leukemia_models.runs.run_files import RESULTS_NAME, is_begun

FORMAT_VERSION = 1
PAIRED_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "auroc")
"""What the page shows of a pair; the JSON has all."""
ABSENT = "-"
_OCCASIONAL_FIGURES = tuple(
    f"{name}.{suffix}" for name in ("accuracy-stage-[0-9]*", "subjects") for suffix in ("png", "pdf")
)


def require_comparison_folder(out_dir: Path) -> None:
    """Refuse a folder whose figures have the names of a comparison's: one of a run, a plan, a k-fold or a judged part.

    Raises
    ------
    UsageError
        If it is one of these.
    """
    if is_begun(out_dir) or is_kfold(out_dir) or (out_dir / RESULTS_NAME).exists():
        raise UsageError(f"--out {out_dir} belongs to a run's own results: choose another folder")


def write_comparison(out_dir: Path, comparison: Comparison) -> list[Path]:
    """Write the comparison into a folder, which is made.

    Returns
    -------
    list of Path
        ``comparison.md``, ``comparison.csv``, ``comparison.json`` and the figures (PNG; each has a PDF beside it).
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    figures = _write_figures(out_dir, comparison)
    page, table, values = (out_dir / f"comparison{suffix}" for suffix in (".md", ".csv", ".json"))
    write_table(table, comparison_table(comparison))
    document = {"format_version": FORMAT_VERSION, **comparison.to_dict(), "figures": [path.name for path in figures]}
    write_text(values, json.dumps(document, indent=2, allow_nan=False, default=str) + "\n")
    write_text(page, comparison_text(comparison, [path.name for path in figures]))
    return [page, table, values, *figures]


def _write_figures(out_dir: Path, comparison: Comparison) -> list[Path]:
    runs, stamp = comparison.runs, comparison.stamp
    judged = f"{' / '.join(dict.fromkeys(run.part for run in runs))} images"
    drawn = {"accuracy": draw_accuracies(runs, title="Accuracy per epoch", stamp=stamp)}
    num_stages = max(len(run.stages) for run in runs)
    for stage in range(num_stages) if num_stages > 1 else ():
        names = ", ".join(stage_names(runs, stage))
        title = f"Accuracy per epoch, stage {stage + 1} of {num_stages}{f': {names}' if names else ''}"
        drawn[f"accuracy-stage-{stage + 1}"] = draw_stage_accuracies(runs, stage, title=title, stamp=stamp)
    drawn["confusion"] = draw_confusions(runs, title=f"Confusion matrices, {judged}", stamp=stamp)
    drawn["roc"] = draw_rocs(runs, title=f"ROC curves, {judged}", stamp=stamp)
    subjects = draw_subject_shares(runs, title=f"Share judged right per subject, {judged}", stamp=stamp)
    if subjects is not None:
        drawn["subjects"] = subjects
    _remove_other_figures(out_dir, drawn)
    paths = [out_dir / f"{name}.png" for name in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        save_figure(figure, path)
    return paths


def _remove_other_figures(out_dir: Path, drawn: Collection[str]) -> None:
    """Remove figures of an earlier comparison that this one has none of: they would pass for its own."""
    for pattern in _OCCASIONAL_FIGURES:
        for path in out_dir.glob(pattern):
            if path.stem not in drawn:
                path.unlink()


def comparison_text(comparison: Comparison, figures: Sequence[str] = ()) -> str:
    """Return the page as Markdown."""
    runs, classes = comparison.runs, comparison.runs[0].classes
    mark = " (some PATIENT-MIXED)" if any(run.is_patient_mixed for run in runs) else ""
    header = ("", *(plain(run.marked_label) for run in runs))
    marked = {run.label: plain(run.marked_label) for run in runs}
    sections = [
        f"# {len(runs)} runs compared{mark}",
        "\n".join(f"> {plain(sentence)}\n>" for sentence in comparison.cautions).removesuffix("\n>"),
        f"## Runs{mark}\n\n" + markdown_table(header, _run_rows(runs)),
        f"## Per image{mark}\n\n"
        + markdown_table(header, _metric_rows(classes, [(run.metrics, run.intervals) for run in runs])),
        f"## Per subject{mark}\n\n"
        "A subject counts once, with the mean probability of its cells.\n\n"
        + markdown_table(
            header, _metric_rows(classes, [(run.subject_level.mean, run.subject_intervals) for run in runs])
        ),
        _interval_notes(runs),
        f"## Differences on the same images{mark}\n\n"
        + "\n\n".join(_pair_text(pair, marked, classes) for pair in comparison.pairs),
        "## Settings that differ\n\n" + _settings_text(header, comparison.settings),
        "## Figures\n\n" + "\n".join(f"- [{name}]({name})" for name in figures) if figures else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _run_rows(runs: Sequence[ComparedRun]) -> list[tuple[str, ...]]:
    return [
        ("folder", *(plain(run.path) for run in runs)),
        ("split", *(f"**{run.stamp}**" if run.is_patient_mixed else run.stamp for run in runs)),
        ("network", *(plain(run.model_name) for run in runs)),
        ("parameters", *(ABSENT if run.num_parameters is None else f"{run.num_parameters:,}" for run in runs)),
        ("epochs", *(" + ".join(str(len(stage.epochs)) for stage in run.stages) for run in runs)),
        ("judged part", *(plain(run.part) for run in runs)),
        ("positive class", *(code(run.positive) for run in runs)),
        ("images", *(f"{len(run.samples):,}" for run in runs)),
        ("subjects", *(_subjects_text(run) for run in runs)),
    ]


def _subjects_text(run: ComparedRun) -> str:
    counts = run.intervals.subjects_per_class
    if counts is None:
        return "unknown"
    return ", ".join(f"{count} {plain(name)}" for count, name in zip(counts, run.classes, strict=True))


Judged = tuple[ClassificationMetrics | None, SubjectBootstrap | None]


def _metric_rows(classes: Sequence[str], judged: Sequence[Judged]) -> list[tuple[str, ...]]:
    return [
        (metric_title(name, classes, code), *(_metric_text(name, *each) for each in judged)) for name in METRIC_NAMES
    ]


def _metric_text(name: str, metrics: ClassificationMetrics | None, bootstrap: SubjectBootstrap | None) -> str:
    value = metrics.values()[name] if metrics is not None else None
    interval = bootstrap.intervals.get(name) if bootstrap is not None else None
    if value is None:
        return ABSENT
    return f"{value:.3f} ({interval.low:.3f} to {interval.high:.3f})" if interval else f"{value:.3f}"


def _interval_notes(runs: Sequence[ComparedRun]) -> str:
    """Say what the intervals are, and why some are missing."""
    level = runs[0].intervals.settings.level
    notes = dict.fromkeys(
        plain(f"{run.label}: {bootstrap.note}")
        for run in runs
        for bootstrap in (run.intervals, run.subject_intervals)
        if bootstrap is not None and bootstrap.note
    )
    sentences = [f"In brackets: {level:.0%} intervals by resampling subjects.", *(f"- {note}" for note in notes)]
    return "\n\n".join([sentences[0], "\n".join(sentences[1:])]) if notes else sentences[0]


def _pair_text(pair: PairComparison, marked: Mapping[str, str], classes: Sequence[str]) -> str:
    title = f"### {marked[pair.first]} minus {marked[pair.second]}\n\n"
    if pair.refusal is not None:
        return f"{title}Not compared: {plain(pair.refusal)}."
    header = ("", "per image", "interval", "draws <= 0", "per subject", "interval", "draws <= 0")
    rows = [
        (
            metric_title(name, classes, code),
            *_difference_cells(pair.images, name),
            *_difference_cells(pair.subjects, name),
        )
        for name in PAIRED_METRICS
    ]
    notes = without_repeats(each.note for each in (pair.images, pair.subjects) if each is not None and each.note)
    return title + markdown_table(header, rows) + "".join(f"\n\n{plain(note)}" for note in notes)


def _difference_cells(paired: PairedBootstrap | None, name: str) -> tuple[str, str, str]:
    difference = paired.differences.get(name, Difference(None, None, None)) if paired else Difference(None, None, None)
    interval, share = difference.interval, difference.share_at_most_zero
    return (
        ABSENT if difference.difference is None else f"{difference.difference:+.3f}",
        ABSENT if interval is None else f"{interval.low:+.3f} to {interval.high:+.3f}",
        ABSENT if share is None else f"{share:.1%}",
    )


def _settings_text(header: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> str:
    if not settings:
        return "None: the runs were told the same."
    rows = [
        (code(name), *(ABSENT if value is None else plain(value) for value in row)) for name, row in settings.items()
    ]
    return markdown_table(header, rows)


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row a run: what it is, its metrics per image and per subject with intervals, differing settings."""
    rows = []
    for number, run in enumerate(comparison.runs):
        row: dict[str, Any] = {
            "run": run.label,
            "path": str(run.path),
            "stamp": run.stamp,
            "model_name": run.model_name,
            "parameters": run.num_parameters,
            "part": run.part,
            "positive": run.positive,
            "images": len(run.samples),
        }
        row |= _metric_columns("image", run.metrics, run.intervals)
        row |= _metric_columns("subject", run.subject_level.mean, run.subject_intervals)
        row |= {f"setting_{name}": values[number] for name, values in comparison.settings.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _metric_columns(
    unit: str, metrics: ClassificationMetrics | None, bootstrap: SubjectBootstrap | None
) -> dict[str, float | None]:
    values = metrics.values() if metrics is not None else dict.fromkeys(METRIC_NAMES)
    intervals = bootstrap.intervals if bootstrap is not None else {}
    columns: dict[str, float | None] = {}
    for name in METRIC_NAMES:
        interval = intervals.get(name)
        columns[f"{unit}_{name}"] = values[name]
        columns[f"{unit}_{name}_low"] = interval.low if interval else None
        columns[f"{unit}_{name}_high"] = interval.high if interval else None
    return columns
