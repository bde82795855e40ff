"""The written report of one run: what was judged in, ``results.json``, ``history.csv`` and ``summary.md`` out.

No number appears without the kind of split behind it. Subjects, not images, are the sample size: a summary says in
plain words when they are too few, unknown, or on both sides of the split.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leukemia_data.atomic import write_text
from leukemia_data.splits import LeakCheck
from leukemia_models.history import EPOCH_FIELDS, TrainHistory
from leukemia_models.metrics import ClassificationMetrics, MajorityBaseline

FORMAT_VERSION = 1
ENOUGH_SUBJECTS = 10


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
        The part that was judged, such as ``valid`` or ``test``.
    parts : mapping of str to SplitCounts
        ``train``, ``valid``, ``test``.
    """

    kind: str
    leaks: LeakCheck
    judged: str
    parts: Mapping[str, SplitCounts]

    @property
    def stamp(self) -> str:
        """The words that go on every table, figure and page."""
        return self.leaks.stamp

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the stamp as JSON can hold them."""
        parts = {name: counts.to_dict() for name, counts in self.parts.items()}
        return {**vars(self), "leaks": asdict(self.leaks), "parts": parts, "stamp": self.stamp}


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a reader needs to judge a run.

    Parameters
    ----------
    model_name : str
        Name of the network.
    classes : tuple of str
        Name of each label.
    settings : mapping
        What the run was told, as JSON values.
    split : SplitSummary
        How the data were split.
    epoch : int
        The epoch whose weights were judged.
    metrics : ClassificationMetrics
        Of the judged part.
    baseline : MajorityBaseline
        Of the same part.
    warnings : tuple of str
        Anything else that speaks against the numbers.
    """

    model_name: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    split: SplitSummary
    epoch: int
    metrics: ClassificationMetrics
    baseline: MajorityBaseline
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "format_version": FORMAT_VERSION,
            **vars(self),
            "split": self.split.to_dict(),
            "metrics": self.metrics.to_dict(),
            "baseline": self.baseline.to_dict(),
            "cautions": cautions(self),
        }


def cautions(results: Results) -> list[str]:
    """Return, in plain sentences, what keeps the numbers from saying how the network does on new patients."""
    sentences = [*_subject_cautions(results.split, results.classes), *results.warnings]
    if results.metrics.one_class_warning:
        sentences.append(f"{results.metrics.one_class_warning}.")
    return sentences


def _subject_cautions(split: SplitSummary, classes: Sequence[str]) -> Iterator[str]:
    if split.leaks.shared_subjects or split.leaks.shared_images:
        yield (
            f"{split.stamp}: cells of the same patients are in the training and in the judged images. "
            "These numbers do not say how the network does on new patients; there they are clearly lower."
        )
    counts = split.parts[split.judged].subjects_per_class
    if counts is None:
        yield (
            "The subjects of the judged images are unknown. The same patients may be in the training images, and then "
            "these numbers do not say how the network does on new patients."
        )
    elif min(counts) < ENOUGH_SUBJECTS:
        listed = " and ".join(f"{count} of class {name!r}" for count, name in zip(counts, classes, strict=True))
        yield (
            f"Too few subjects to generalise: the judged images come from few people, {listed} "
            f"(fewer than {ENOUGH_SUBJECTS} in a class). Another draw of patients can give quite different numbers."
        )


def write_results(path: Path, results: Results) -> None:
    """Write ``results.json``, atomically; undefined numbers are null."""
    write_text(path, json.dumps(results.to_dict(), indent=2, allow_nan=False) + "\n")


def write_history(path: Path, history: TrainHistory, stamp: str) -> None:
    """Write one CSV row per epoch, atomically; undefined numbers are empty, the last column is the split's stamp."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*EPOCH_FIELDS, "split"])
    for record in history.records:
        values = record.to_dict()
        writer.writerow([*(values[name] for name in EPOCH_FIELDS), stamp])
    write_text(path, buffer.getvalue())


def write_summary(path: Path, results: Results, figures: Sequence[str] = ()) -> None:
    """Write ``summary.md``, atomically.

    Parameters
    ----------
    path : Path
        In a directory that exists.
    results : Results
        What to report.
    figures : sequence of str
        File names beside `path`.
    """
    # A path in the settings may hold bytes that are no UTF-8.
    text = summary_text(results, figures).encode("utf-8", "backslashreplace").decode("utf-8")
    write_text(path, text)


def summary_text(results: Results, figures: Sequence[str] = ()) -> str:
    """Return the page as Markdown."""
    split = results.split
    sections = [
        f"# {results.model_name}, epoch {results.epoch}: {split.judged} images",
        f"Split: **{split.stamp}** (`{split.kind}`)",
        "\n".join(f"> {sentence}" + "\n>" for sentence in cautions(results)).removesuffix("\n>"),
        "## Results (" + split.stamp + ")\n\n" + _metrics_table(results),
        "## Data (" + split.stamp + ")\n\n" + _split_table(split, results.classes),
        "## Settings\n\n" + _table(("setting", "value"), _flattened(results.settings)),
        "## Figures\n\n" + "\n".join(f"- [{name}]({name})" for name in figures) if figures else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _metrics_table(results: Results) -> str:
    metrics, baseline, classes = results.metrics, results.baseline, results.classes
    two_classes = metrics.balanced_accuracy is not None
    chance = 0.5 if two_classes else None
    rows = [
        ("images", f"{metrics.num_samples:,}", f"{metrics.num_samples:,}"),
        ("balanced accuracy", _number(metrics.balanced_accuracy), _number(chance)),
    ]
    for label, (name, recall) in enumerate(zip(classes, metrics.recall_per_class, strict=True)):
        constant = None if recall is None else float(label == baseline.prediction)
        rows.append((f"recall `{name}`", _number(recall), _number(constant)))
    rows += [
        ("weighted F1", _number(metrics.weighted_f1), _number(baseline.weighted_f1)),
        ("macro F1", _number(metrics.macro_f1), _number(baseline.macro_f1)),
        ("AUROC", _number(metrics.auroc), _number(chance)),
        ("accuracy", _number(metrics.accuracy), _number(baseline.accuracy)),
    ]
    return _table(("per image", results.model_name, f"always `{classes[baseline.prediction]}`"), rows)


def _split_table(split: SplitSummary, classes: Sequence[str]) -> str:
    header = ["part", *(f"images `{name}`" for name in classes), *(f"subjects `{name}`" for name in classes)]
    rows = []
    for name, counts in split.parts.items():
        subjects = counts.subjects_per_class or ("unknown",) * len(classes)
        label = f"{name} (judged)" if name == split.judged else name
        rows.append([label, *(f"{count:,}" for count in counts.images_per_class), *map(str, subjects)])
    return _table(header, rows)


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield nested settings as ``optimizer.lr`` and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
