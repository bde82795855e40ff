"""Compare runs: metrics, paired differences, settings that differ; tables, figures and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_data.files.atomic import remove_file, write_text
from leukemia_data.lazy_imports import pd
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_models.comparing.compared_run import ComparedRun, read_compared_runs
from leukemia_models.comparing.comparison_figures import (
    draw_accuracies,
    draw_confusions,
    draw_rocs,
    draw_stage_accuracies,
    draw_subject_shares,
    stage_names,
)
from leukemia_models.comparing.fold_evaluation import OUT_OF_FOLD_PART
from leukemia_models.evaluation.bootstrap import Difference, PairedBootstrap, SubjectBootstrap, paired_bootstrap
from leukemia_models.evaluation.classification import ClassificationMetrics
from leukemia_models.evaluation.metrics import main_metric_names, metric_names, metric_title
from leukemia_models.evaluation.predictions import write_table
from leukemia_models.evaluation.resampling import DEFAULT_BOOTSTRAP, BootstrapSettings
from leukemia_models.reports.style import code, markdown_table, plain, quoted_paragraphs, save_figure, without_repeats
from leukemia_models.runs.run_folder import RESULTS_NAME, is_begun, is_kfold


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Differences of two runs on the same images.

    Parameters
    ----------
    first, second : str
        Labels of the runs; differences are first minus second.
    images, subjects : PairedBootstrap or None
        Differences of the metrics per image and per subject; None if refused, or no subject is known.
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
        images, subjects = (each.to_dict() if each else None for each in (self.images, self.subjects))
        return {**vars(self), "images": images, "subjects": subjects}


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison:
    """A comparison of runs.

    Parameters
    ----------
    settings : mapping of str to tuple
        Settings that differ: one value per run, None for a run without the setting.
    pairs : tuple of PairComparison
        All pairs of the runs.
    """

    runs: tuple[ComparedRun, ...]
    settings: Mapping[str, tuple[Any, ...]]
    pairs: tuple[PairComparison, ...]

    def __repr__(self) -> str:
        return f"Comparison({', '.join(run.label for run in self.runs)}; {self.stamp})"

    def _repr_markdown_(self) -> str:
        """Return the page, for notebooks."""
        return comparison_text(self)

    @property
    def stamp(self) -> str:
        """The common stamp of the runs, else each stamp with its runs, patient-mixed ones first."""
        labels_of: dict[str, list[str]] = {}
        for run in sorted(self.runs, key=lambda run: not run.is_patient_mixed):
            labels_of.setdefault(run.stamp, []).append(run.label)
        if len(labels_of) == 1:
            return self.runs[0].stamp
        return "\n".join(f"{stamp}: {', '.join(labels)}" for stamp, labels in labels_of.items())

    @property
    def cautions(self) -> list[str]:
        """Sentences about what the comparison cannot show."""
        return list(self._cautions())

    def _cautions(self) -> Iterator[str]:
        def labels(chosen: Callable[[ComparedRun], bool]) -> str:
            return ", ".join(run.label for run in self.runs if chosen(run))

        if mixed := labels(lambda run: run.is_patient_mixed):
            yield (
                f"{mixed}: patients are mixed. These numbers do not say how the networks do on new patients; there "
                "they are clearly lower."
            )
            if not all(run.is_patient_mixed for run in self.runs):
                yield "Runs with and without mixed patients must not be ranked against each other."
        if len({frozenset(run.samples.ids) for run in self.runs}) > 1:
            yield "The runs were evaluated on different images, so differences in the table may be those of the images."
        if unknown := labels(lambda run: not run.pixel_digests.keys() >= frozenset(run.samples.ids)):
            yield (
                f"{unknown}: an earlier version wrote no pixel digests into split.csv. Whether images with the same id "
                "have the same pixels is not checked."
            )
        if validated := labels(lambda run: run.part == "valid"):
            yield (
                f"{validated}: evaluated on validation images, which chose the epoch and more. These numbers are a "
                "little too good; compare by --part test before you prefer one."
            )
        if pooled := labels(lambda run: run.part == OUT_OF_FOLD_PART):
            yield (
                f"{pooled}: out-of-fold predictions of several networks. AUROC compares their probabilities with each "
                "other; the summary of the k-fold has the mean within each. Curves are means over folds."
            )
        num_pairs = sum(pair.refusal is None for pair in self.pairs)
        if num_pairs > 1:
            yield (
                f"{num_pairs} pairs are compared, each with its own interval: with many pairs, an interval may exclude "
                "zero by chance."
            )

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


def compare_runs(
    paths: Sequence[Path],
    part: str = "test",
    *,
    out: Path | None = None,
    settings: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> tuple[Comparison, list[Path]]:
    """Compare runs, plans and k-folds by their evaluated predictions.

    Parameters
    ----------
    paths
        Two or more folders.
    part
        ``test`` or ``valid``; a k-fold is always compared by its out-of-fold predictions.
    out
        Folder for tables and figures; None writes nothing.
    settings
        Of the paired bootstrap.

    Returns
    -------
    comparison : Comparison
        Of the runs, in this order.
    files : list of Path
        Written files; see :func:`write_comparison`.

    Raises
    ------
    UsageError
        If there are fewer than two folders, one is named twice, the runs cannot be compared, or `out` belongs to a run.
    RunError
        If a folder holds no run, or the part was not evaluated.
    """
    if out is not None and (is_begun(out) or is_kfold(out) or (out / RESULTS_NAME).exists()):
        raise UsageError(f"--out {out} belongs to a run's own results: choose another folder")
    comparison = compare(read_compared_runs(paths, part), settings)
    return comparison, [] if out is None else write_comparison(out, comparison)


def compare(runs: Sequence[ComparedRun], settings: BootstrapSettings = DEFAULT_BOOTSTRAP) -> Comparison:
    """Compare two or more runs with different labels.

    Raises
    ------
    UsageError
        If they have different classes, or different positive ones.
    """
    for run in runs[1:]:
        if run.positive is not None and run.classes == runs[0].classes[::-1]:
            raise UsageError(
                f"{runs[0].label} and {run.label} have different positive classes: {runs[0].classes[1]} and "
                f"{run.classes[1]}. Their sensitivity, AUPRC and thresholds are not of the same class: compare runs "
                "that were trained with the same --positive"
            )
        if run.classes != runs[0].classes:
            raise UsageError(
                f"{runs[0].label} and {run.label} have different classes: {', '.join(runs[0].classes)} and "
                f"{', '.join(run.classes)}"
            )
    return Comparison(
        runs=tuple(runs),
        settings=differing_settings([run.settings for run in runs]),
        pairs=tuple(_compare_pair(first, second, settings) for first, second in combinations(runs, 2)),
    )


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the settings that differ between runs, in the order in which they first appear."""
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
    known = first.pixel_digests.keys() & second.pixel_digests.keys()
    other = [each for each in known if first.pixel_digests[each] != second.pixel_digests[each]]
    if other:
        raise UsageError(
            f"{len(other):,} images have other pixels in the one run than in the other, under the same id (first "
            f"{min(other)})"
        )


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
        "images": _evaluated_dict(run.metrics, run.intervals),
        "subjects": _evaluated_dict(level.mean, run.subject_intervals),
    }


def _evaluated_dict(metrics: ClassificationMetrics | None, intervals: SubjectBootstrap | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    return {"metrics": metrics.to_dict(), "bootstrap": intervals.to_dict() if intervals else None}


FORMAT_VERSION = 1
ABSENT = "-"


def write_comparison(out_dir: Path, comparison: Comparison) -> list[Path]:
    """Write the comparison into a folder.

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
    evaluated = f"{' / '.join(dict.fromkeys(run.part for run in runs))} images"
    drawn = {"accuracy": draw_accuracies(runs, title="Accuracy per epoch", stamp=stamp)}
    num_stages = max(len(run.stages) for run in runs)
    for stage in range(num_stages) if num_stages > 1 else ():
        names = ", ".join(stage_names(runs, stage))
        title = f"Accuracy per epoch, stage {stage + 1} of {num_stages}{f': {names}' if names else ''}"
        drawn[f"accuracy-stage-{stage + 1}"] = draw_stage_accuracies(runs, stage, title=title, stamp=stamp)
    drawn["confusion"] = draw_confusions(runs, title=f"Confusion matrices, {evaluated}", stamp=stamp)
    drawn["roc"] = draw_rocs(runs, title=f"ROC curves, {evaluated}", stamp=stamp)
    subjects = draw_subject_shares(runs, title=f"Share right per subject, {evaluated}", stamp=stamp)
    if subjects is not None:
        drawn["subjects"] = subjects
    # Figures of an earlier comparison in the same folder.
    for pattern in ("accuracy-stage-[0-9]*.png", "accuracy-stage-[0-9]*.pdf", "subjects.png", "subjects.pdf"):
        for path in out_dir.glob(pattern):
            if path.stem not in drawn:
                remove_file(path)
    paths = [out_dir / f"{name}.png" for name in drawn]
    for path, figure in zip(paths, drawn.values(), strict=True):
        save_figure(figure, path)
    return paths


def comparison_text(comparison: Comparison, figures: Sequence[str] = ()) -> str:
    """Return the page as Markdown."""
    runs, classes = comparison.runs, comparison.runs[0].classes
    mark = " (some PATIENT-MIXED)" if any(run.is_patient_mixed for run in runs) else ""
    marked = {run.label: plain(run.marked_label) for run in runs}
    header = ("", *marked.values())
    per_image = _metric_rows(classes, [(run.metrics, run.intervals) for run in runs])
    per_subject = _metric_rows(classes, [(run.subject_level.mean, run.subject_intervals) for run in runs])
    sections = [
        f"# {len(runs)} runs compared{mark}",
        quoted_paragraphs(comparison.cautions),
        f"## Runs{mark}\n\n" + markdown_table(header, _run_rows(runs)),
        f"## Per image{mark}\n\n" + markdown_table(header, per_image),
        f"## Per subject{mark}\n\n"
        "A subject counts once, with the mean probability of its cells.\n\n" + markdown_table(header, per_subject),
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
        ("evaluated part", *(plain(run.part) for run in runs)),
        *([("positive class", *(code(run.positive or "") for run in runs))] if runs[0].positive is not None else []),
        ("images", *(f"{len(run.samples):,}" for run in runs)),
        ("subjects", *(_subjects_text(run) for run in runs)),
    ]


def _subjects_text(run: ComparedRun) -> str:
    counts = run.intervals.subjects_per_class
    if counts is None:
        return "unknown"
    return ", ".join(f"{count} {plain(name)}" for count, name in zip(counts, run.classes, strict=True))


Evaluated = tuple[ClassificationMetrics | None, SubjectBootstrap | None]


def _metric_rows(classes: Sequence[str], evaluated: Sequence[Evaluated]) -> list[tuple[str, ...]]:
    return [
        (metric_title(name, classes, code), *(_metric_text(name, *each) for each in evaluated))
        for name in metric_names(len(classes))
    ]


def _metric_text(name: str, metrics: ClassificationMetrics | None, bootstrap: SubjectBootstrap | None) -> str:
    value = metrics.values()[name] if metrics is not None else None
    interval = bootstrap.intervals.get(name) if bootstrap is not None else None
    if value is None:
        return ABSENT
    return f"{value:.3f} ({interval.low:.3f} to {interval.high:.3f})" if interval else f"{value:.3f}"


def _interval_notes(runs: Sequence[ComparedRun]) -> str:
    """Return what the intervals are, and why some are missing."""
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
        for name in main_metric_names(len(classes))
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
        return "None: the runs have the same settings."
    rows = [
        (code(name), *(ABSENT if value is None else plain(value) for value in row)) for name, row in settings.items()
    ]
    return markdown_table(header, rows)


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row per run: metrics per image and per subject with intervals, and settings that differ."""
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
        names = metric_names(len(run.classes))
        row |= _metric_columns("image", names, run.metrics, run.intervals)
        row |= _metric_columns("subject", names, run.subject_level.mean, run.subject_intervals)
        row |= {f"setting_{name}": values[number] for name, values in comparison.settings.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _metric_columns(
    unit: str, names: Sequence[str], metrics: ClassificationMetrics | None, bootstrap: SubjectBootstrap | None
) -> dict[str, float | None]:
    values = metrics.values() if metrics is not None else dict.fromkeys(names)
    columns: dict[str, float | None] = {}
    for name in names:
        interval = bootstrap.intervals.get(name) if bootstrap is not None else None
        columns[f"{unit}_{name}"] = values[name]
        columns[f"{unit}_{name}_low"] = interval.low if interval else None
        columns[f"{unit}_{name}_high"] = interval.high if interval else None
    return columns
