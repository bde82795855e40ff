"""The part of ``ltrain compare`` that needs torch and matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cli.output import format_table, print_json, print_text
from leukemia_models.comparing.compared_run import read_compared_runs
from leukemia_models.comparing.comparison import (
    Comparison,
    PairComparison,
    compare_runs,
    require_comparison_folder,
    write_comparison,
)
from leukemia_models.evaluation.metrics import metric_title

_SHOWN = ("balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "auroc")


def compare(paths: tuple[Path, ...], *, part: str, out: Path, as_json: bool) -> None:
    """Read the runs, compare them, write tables and figures, and say the essentials."""
    require_comparison_folder(out)
    comparison = compare_runs(read_compared_runs(paths, part))
    written = write_comparison(out, comparison)
    if as_json:
        print_json({**comparison.to_dict(), "out": str(out), "files": [path.name for path in written]})
        return
    print_text(_table(comparison))
    for sentence in comparison.cautions:
        print_text(f"caution: {sentence}")
    for pair in comparison.pairs:
        print_text(_pair_line(pair, {run.label: run.marked_label for run in comparison.runs}))
    print_text(f"Look at {written[0]} and {out / 'accuracy.png'}")


def _table(comparison: Comparison) -> str:
    header = ["per image", *(metric_title(name, comparison.runs[0].classes) for name in _SHOWN), "images"]
    rows = []
    for run in comparison.runs:
        values = run.metrics.values()
        numbers = ["-" if (value := values[name]) is None else f"{value:.3f}" for name in _SHOWN]
        rows.append([run.marked_label, *numbers, f"{len(run.samples):,}"])
    return format_table(header, rows)


def _pair_line(pair: PairComparison, marked: Mapping[str, str]) -> str:
    """The difference in balanced accuracy per image, or why there is none."""
    names = f"{marked[pair.first]} minus {marked[pair.second]}"
    if pair.images is None:
        return f"{names}: not compared, {pair.refusal}"
    difference = pair.images.differences["balanced_accuracy"]
    if difference.difference is None:
        return f"{names}: balanced accuracy undefined"
    interval = difference.interval
    spread = f" ({pair.images.note})" if pair.images.note else ""
    if interval is not None:
        spread = f", {pair.images.settings.level:.0%} interval {interval.low:+.3f} to {interval.high:+.3f}{spread}"
    return f"{names}: balanced accuracy {difference.difference:+.3f}{spread}"
