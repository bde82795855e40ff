"""Comparisons of runs: reading, differences, comparable pairs, and output."""

from __future__ import annotations

import csv
import json
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from leukemia_data.errors import RunError, UsageError
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.comparing.compared_run import (
    ComparedRun,
    EpochAccuracy,
    StageCurve,
    mean_curves,
    read_compared_runs,
)
from leukemia_models.comparing.comparison import (
    compare,
    comparison_table,
    comparison_text,
    differing_settings,
    write_comparison,
)
from leukemia_models.comparing.comparison_figures import (
    draw_accuracies,
    draw_confusions,
    draw_rocs,
    draw_stage_accuracies,
    draw_subject_shares,
    stage_names,
)
from leukemia_models.comparing.fold_report import pool_folds
from leukemia_models.evaluation.predictions import read_predictions
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.networks.registry import build_model, count_parameters
from leukemia_models.reports.style import lay_out

from ...blank_figures import blank_figures
from ..finished_runs import (
    predictions_of,
    random_predictions,
    write_curve,
    write_fold,
    write_part,
    write_plan,
    write_run,
)

PEOPLE = {**{str(k): 1 for k in range(1, 8)}, **{f"H{k}": 0 for k in range(1, 7)}}
OTHERS = {**PEOPLE, "99": 1}
MIXED = LeakCheck(3, 1, 0)
QUICK = BootstrapSettings(num_draws=200)
NETWORKS = ("resnet18", "resnet34", "resnet50")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three networks evaluated on the same images; the second is patient-mixed."""
    return [
        write_run(
            tmp_path / f"run-{n}",
            random_predictions(PEOPLE, 5, seed=n, strength=3 - n),
            model_name=name,
            leaks=MIXED if n == 1 else LeakCheck(0, 0, 0),
        )
        for n, name in enumerate(NETWORKS)
    ]


@pytest.fixture
def plans(tmp_path: Path) -> list[Path]:
    """Three networks trained in the same two stages."""
    return [
        write_plan(tmp_path / name, random_predictions(PEOPLE, 5, seed=n), {"small": 4, "large": 3}, model_name=name)
        for n, name in enumerate(NETWORKS)
    ]


def legend_of(figure) -> list[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def texts_of(figure) -> str:
    axes_texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label)]
    return "\n".join([*legend_of(figure), *axes_texts, *(text.get_text() for text in figure.texts)])


def render(figure) -> np.ndarray:
    """Pixels of the figure; one whose parts do not fit warns, and a warning is an error here."""
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_run_is_read(runs):
    first, second, _ = read_compared_runs(runs)
    assert (first.label, first.model_name, first.part, first.stamp) == (
        "resnet18",
        "resnet18",
        "test",
        "subject-disjoint",
    )
    assert first.stages == (
        StageCurve("", (EpochAccuracy(0.6, 0.55), EpochAccuracy(0.7, 0.65), EpochAccuracy(0.8, 0.7))),
    )
    assert len(first.samples) == 13 * 5
    assert first.num_parameters == count_parameters(build_model("resnet18", 2))
    assert first.settings["optimizer.lr"] == 0.005
    assert first.settings["recipe"] == "raw"
    assert second.is_patient_mixed
    assert second.marked_label == "resnet34 (patient-mixed)"


def test_stages_of_a_plan_follow_each_other_and_the_last_is_evaluated(plans):
    run = read_compared_runs(plans)[0]
    assert [(stage.name, len(stage.epochs)) for stage in run.stages] == [("small", 4), ("large", 3)]
    assert run.settings["stages"] == "small (4 epochs), large (3 epochs)"
    assert run.settings["epochs"] == 3


def test_runs_of_one_network_are_distinguished_by_their_folders(tmp_path):
    table = random_predictions(PEOPLE, 2, seed=0)
    paths = [write_run(tmp_path / "a" / "run", table), write_run(tmp_path / "b" / "run", table)]
    assert [run.label for run in read_compared_runs(paths)] == ["a/run", "b/run"]
    other = write_run(tmp_path / "other", table)
    assert [run.label for run in read_compared_runs([paths[0], other])] == ["run", "other"]


def test_a_k_fold_is_evaluated_by_its_pooled_predictions_and_drawn_by_mean_curves(tmp_path):
    root = tmp_path / "kfold"
    halves = [dict(list(PEOPLE.items())[k::2]) for k in (0, 1)]
    dirs = [
        write_fold(root / f"fold-{k + 1}", random_predictions(half, 3, k), PEOPLE, 3, split=f"test-fold:{k + 1}/2")
        for k, half in enumerate(halves)
    ]
    write_curve(dirs[1], [0.8, 0.9], [None, None])
    (root / "kfold.json").write_text("{}", encoding="utf-8")
    pool_folds(dirs, root, QUICK)
    single = write_run(tmp_path / "single", random_predictions(PEOPLE, 3, 7), model_name="resnet50")
    pooled, other = read_compared_runs([root, single])
    assert (pooled.part, other.part) == ("out-of-fold", "test")
    assert pooled.stages == (
        StageCurve("", (EpochAccuracy(pytest.approx(0.7), None), EpochAccuracy(pytest.approx(0.8), None))),
    )
    assert pooled.settings["split"] == "2 folds by subject"
    assert "normalization.mean" not in pooled.settings
    comparison = compare([pooled, other], QUICK)
    assert comparison.pairs[0].refusal is None
    assert any("out-of-fold predictions of several networks" in sentence for sentence in comparison.cautions)


def test_mean_curves_end_with_the_shortest_fold():
    folds = [
        [
            StageCurve("a", (EpochAccuracy(0.5, 0.4), EpochAccuracy(0.7, 0.6))),
            StageCurve("b", (EpochAccuracy(0.9, 0.9),)),
        ],
        [StageCurve("a", (EpochAccuracy(0.7, None),)), StageCurve("b", (EpochAccuracy(0.7, 0.5),))],
    ]
    assert mean_curves(folds) == (
        StageCurve("a", (EpochAccuracy(pytest.approx(0.6), None),)),
        StageCurve("b", (EpochAccuracy(pytest.approx(0.8), pytest.approx(0.7)),)),
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda paths: paths[:1], UsageError, "two runs or more"),
        (lambda paths: [paths[0], paths[0].parent / "." / paths[0].name], UsageError, "named twice"),
        (lambda paths: [paths[0], paths[0].parent / "absent"], UsageError, "does not exist"),
        (lambda paths: [paths[0], paths[0] / "test"], RunError, "holds no run"),
    ],
)
def test_what_cannot_be_compared(runs, change, error, message):
    with pytest.raises(error, match=message):
        read_compared_runs(change(runs))


def test_a_part_that_was_not_evaluated(runs):
    with pytest.raises(RunError, match=r"not evaluated on its part valid: compare by --part test.*ltrain evaluate"):
        read_compared_runs(runs, "valid")
    for run in runs:
        (run / "test" / "predictions.csv").unlink()
    with pytest.raises(RunError, match=r"part valid: evaluate it first, with `ltrain evaluate`"):
        read_compared_runs(runs, "valid")


def test_a_part_without_labels(runs):
    table = predictions_of({"": 1}, 2, {"": [0.5, 0.6]})
    table["label"] = ""
    write_part(runs[0], table, split="given")
    with pytest.raises(UsageError, match=r"--part valid"):
        read_compared_runs(runs)


@pytest.mark.parametrize("accuracy", ["nan", "-0.1", "1.5", "inf", "x"])
def test_an_accuracy_that_is_none_is_refused(runs, accuracy):
    (runs[0] / "history.csv").write_text(f"train_accuracy,valid_accuracy\n0.5,{accuracy}\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"history\.csv cannot be read"):
        read_compared_runs(runs)


@pytest.mark.parametrize("name", ["history.csv", "test/results.json"])
def test_damaged_files_are_named(runs, name):
    (runs[0] / name).write_text("epoch\n1\n", encoding="utf-8")
    with pytest.raises(RunError, match=Path(name).name):
        read_compared_runs(runs)


# --- comparing --------------------------------------------------------------------------------------------------


def test_settings_that_differ():
    settings = [{"lr": 0.1, "seed": 0, "recipe": "raw"}, {"lr": 0.2, "seed": 0, "extra": [1, 2]}]
    assert differing_settings(settings) == {"lr": (0.1, 0.2), "recipe": ("raw", None), "extra": (None, [1, 2])}


def test_validation_images_are_too_good_to_compare_by(runs):
    for number, run in enumerate(runs):
        write_part(run, random_predictions(PEOPLE, 5, seed=number), split="subject", part="valid")
    valid = compare(read_compared_runs(runs, "valid"), QUICK)
    assert any("evaluated on validation images, which chose the epoch" in sentence for sentence in valid.cautions)
    assert not any("validation" in sentence for sentence in compare(read_compared_runs(runs), QUICK).cautions)


def test_every_pair_is_compared_on_the_same_draws(runs):
    comparison = compare(read_compared_runs(runs), QUICK)
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [
        ("resnet18", "resnet34"),
        ("resnet18", "resnet50"),
        ("resnet34", "resnet50"),
    ]
    first, second, _ = comparison.runs
    pair = comparison.pairs[0]
    expected = first.metrics.balanced_accuracy - second.metrics.balanced_accuracy
    assert pair.images.differences["balanced_accuracy"].difference == pytest.approx(expected)
    assert pair.subjects.subjects_per_class == (6, 7)
    assert any("3 pairs" in sentence for sentence in comparison.cautions)


def test_pairs_evaluated_on_different_images_are_refused_in_a_sentence(tmp_path):
    paths = [
        write_run(tmp_path / "a", random_predictions(PEOPLE, 3, 0), model_name="resnet18"),
        write_run(tmp_path / "b", random_predictions(OTHERS, 3, 0), model_name="resnet50"),
    ]
    comparison = compare(read_compared_runs(paths), QUICK)
    [pair] = comparison.pairs
    assert pair.images is None
    assert "different images" in pair.refusal
    assert any("evaluated on different images" in sentence for sentence in comparison.cautions)
    assert "Not compared: " in comparison_text(comparison)


def test_other_classes_are_refused(runs):
    first, second, _ = read_compared_runs(runs)
    other = ComparedRun(**{**vars(second), "classes": ("healthy", "ill")})
    with pytest.raises(UsageError, match="different classes: hem, all and healthy, ill"):
        compare([first, other])


def test_other_positive_classes_are_refused(runs):
    first, second, _ = read_compared_runs(runs)
    turned = replace(second, classes=second.classes[::-1])
    with pytest.raises(UsageError, match="different positive classes: all and hem"):
        compare([first, turned])


def test_the_positive_class_is_named_on_the_page(runs):
    page = comparison_text(compare(read_compared_runs(runs), QUICK))
    assert "| positive class | `all` | `all` | `all` |" in page
    assert "| sensitivity (recall of `all`) |" in page
    assert list(comparison_table(compare(read_compared_runs(runs), QUICK))["positive"]) == ["all"] * 3


def test_mixed_patients_are_marked_everywhere(runs):
    comparison = compare(read_compared_runs(runs), QUICK)
    assert comparison.stamp.splitlines()[0].startswith("PATIENT-MIXED (3 subjects on both sides")
    assert comparison.stamp.splitlines()[-1] == "subject-disjoint: resnet18, resnet50"
    assert any("must not be ranked" in sentence for sentence in comparison.cautions)
    page = comparison_text(comparison)
    tables = [line for line in page.splitlines() if line.startswith("|  | resnet18")]
    assert len(tables) == 3
    assert all("resnet34 (patient-mixed)" in line for line in tables)
    assert "### resnet18 minus resnet34 (patient-mixed)" in page
    figures = [
        draw_accuracies(comparison.runs, title="t", stamp=comparison.stamp),
        draw_confusions(comparison.runs, title="t", stamp=comparison.stamp),
        draw_rocs(comparison.runs, title="t", stamp=comparison.stamp),
        draw_subject_shares(comparison.runs, title="t", stamp=comparison.stamp),
    ]
    for figure in figures:
        shown = texts_of(figure).replace("\n(", " (")
        assert "resnet34 (patient-mixed)" in shown
        assert "PATIENT-MIXED" in figure.get_supxlabel()


# --- figures ----------------------------------------------------------------------------------------------------


def test_six_lines_for_three_runs(runs):
    figure = draw_accuracies(read_compared_runs(runs), title="t", stamp="s")
    [axes] = figure.axes
    assert legend_of(figure) == [
        f"{name} {part}" for name in ("resnet18", "resnet34 (patient-mixed)", "resnet50") for part in ("train", "valid")
    ]
    lines = axes.get_lines()
    assert [line.get_ydata().tolist() for line in lines] == [[0.6, 0.7, 0.8], [0.55, 0.65, 0.7]] * 3
    colors = [line.get_color() for line in lines]
    assert [colors[0], colors[2], colors[4]] == [colors[1], colors[3], colors[5]]
    assert len(set(colors)) == 3
    # Without colours too: a marker a run, open and dashed for training.
    assert len({line.get_marker() for line in lines}) == 3
    assert [line.get_linestyle() for line in lines] == ["--", "-"] * 3


def test_epochs_continue_over_stages_with_marked_boundaries(plans):
    runs = read_compared_runs(plans)
    figure = draw_accuracies(runs, title="t", stamp="s")
    [axes] = figure.axes
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    assert [list(line.get_xdata()) for line in curves] == [[1, 2, 3, 4, 5, 6, 7]] * 6
    boundaries = [line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert boundaries == [4.5]
    assert [text.get_text() for text in axes.texts] == ["small", "large"]
    stage = draw_stage_accuracies(runs, 1, title="t", stamp="s")
    assert [list(line.get_xdata()) for line in stage.axes[0].get_lines()] == [[1, 2, 3]] * 6
    assert legend_of(stage)[:2] == ["resnet18 train", "resnet18 valid"]


def test_different_stages_are_marked_for_each_run(plans, tmp_path):
    other = write_plan(
        tmp_path / "other", random_predictions(PEOPLE, 5, 8), {"only": 2, "more": 2}, model_name="resnet101"
    )
    runs = read_compared_runs([plans[0], other])
    figure = draw_accuracies(runs, title="t", stamp="s")
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "resnet18: small",
        "resnet18: large",
        "resnet101: only",
        "resnet101: more",
    ]
    stage = draw_stage_accuracies(runs, 1, title="t", stamp="s")
    assert legend_of(stage)[0] == "resnet18, large, train"


def test_a_run_beside_a_plan_has_no_stage_s_name(runs, plans, tmp_path):
    compared = read_compared_runs([runs[0], plans[1]])
    stage = draw_stage_accuracies(compared, 0, title="t", stamp="s")
    assert legend_of(stage) == ["resnet18 train", "resnet18 valid", "resnet34, small, train", "resnet34, small, valid"]
    assert [stage_names(compared, stage) for stage in (0, 1)] == [["small"], ["large"]]


def test_stage_names_stand_above_the_curves(plans):
    figure = draw_accuracies(read_compared_runs(plans), title="t", stamp="s")
    render(figure)
    [axes] = figure.axes
    renderer = figure.canvas.get_renderer()
    top = axes.get_window_extent(renderer).y1
    assert all(text.get_window_extent(renderer).y0 >= top for text in axes.texts)


def test_runs_without_validation_have_one_line(runs):
    write_curve(runs[0], [0.5, 0.6], [None, None])
    figure = draw_accuracies(read_compared_runs(runs), title="t", stamp="s")
    assert legend_of(figure)[:2] == ["resnet18 train", "resnet34 (patient-mixed) train"]


def test_confusions_show_counts_and_fractions(runs):
    compared = read_compared_runs(runs)
    figure = draw_confusions(compared, title="t", stamp="s")
    panels = [axes for axes in figure.axes if axes.texts]
    for axes, run in zip(panels, compared, strict=True):
        counts = np.array(run.metrics.confusion)
        cells = [text.get_text() for text in axes.texts]
        assert cells == [f"{counts[i, j] / counts[i].sum():.1%}\n({counts[i, j]:,})" for i in (0, 1) for j in (0, 1)]


def test_subjects_are_sorted_by_class_and_mean_fraction(tmp_path):
    people = {"H1": 0, "H2": 0, "1": 1}
    shares = {"H1": [0.1, 0.2], "H2": [0.9, 0.2], "1": [0.9, 0.8]}
    worse = {"H1": [0.1, 0.9], "H2": [0.9, 0.8], "1": [0.9, 0.3]}
    paths = [
        write_run(tmp_path / name, predictions_of(people, 2, values), model_name=name)
        for name, values in (("resnet18", shares), ("resnet50", worse))
    ]
    figure = draw_subject_shares(read_compared_runs(paths), title="t", stamp="s")
    [axes] = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["H2", "H1", "1"]
    marks = [line.get_ydata().tolist() for line in axes.get_lines() if line.get_label() in ("resnet18", "resnet50")]
    assert marks == [[0.5, 1.0, 1.0], [0.0, 0.5, 0.5]]


def test_long_class_names_stand_side_by_side(tmp_path):
    runs = read_compared_runs(
        [write_run(tmp_path / name, random_predictions(PEOPLE, 3, n)) for n, name in enumerate("ab")]
    )
    classes = ("Healthy donors from the reference laboratory (control)", "Acute lymphoblastic leukaemia, pre-B")
    figure = draw_subject_shares([replace(run, classes=classes) for run in runs], title="t", stamp="s")
    lay_out(figure)
    one, other = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not one.overlaps(other)
    assert min(one.y0, other.y0) >= figure.axes[0].get_window_extent().y1


def test_no_subjects_no_figure_of_subjects(tmp_path):
    table = random_predictions({"1": 1, "H1": 0}, 4, 0)
    table["subject"] = ""
    paths = [write_run(tmp_path / name, table, model_name=name) for name in NETWORKS[:2]]
    comparison = compare(read_compared_runs(paths), QUICK)
    assert draw_subject_shares(comparison.runs, title="t", stamp="s") is None
    assert comparison.pairs[0].subjects is None
    assert "| subjects | unknown | unknown |" in comparison_text(comparison)


@pytest.mark.parametrize("num_runs", [2, 5])
def test_figures_lay_out(tmp_path, num_runs):
    names = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")[:num_runs]
    paths = [
        write_run(tmp_path / name, random_predictions(PEOPLE, 3, n), model_name=name) for n, name in enumerate(names)
    ]
    compared: Sequence[ComparedRun] = read_compared_runs(paths)
    for draw in (draw_accuracies, draw_confusions, draw_rocs, draw_subject_shares):
        pixels = render(draw(compared, title="A title", stamp="PATIENT-MIXED (1 subject on both sides)"))
        assert pixels.std() > 5


# --- files ------------------------------------------------------------------------------------------------------


def test_everything_is_written(plans, tmp_path):
    comparison = compare(read_compared_runs(plans), QUICK)
    written = write_comparison(tmp_path / "out" / "deep", comparison)
    names = {path.name for path in (tmp_path / "out" / "deep").iterdir()}
    figures = ("accuracy", "accuracy-stage-1", "accuracy-stage-2", "confusion", "roc", "subjects")
    assert names == {f"comparison.{end}" for end in ("md", "csv", "json")} | {
        f"{name}.{end}" for name in figures for end in ("png", "pdf")
    }
    assert {path.name for path in written} == {name for name in names if not name.endswith(".pdf")}
    content = json.loads((tmp_path / "out" / "deep" / "comparison.json").read_text(encoding="utf-8"))
    assert [run["label"] for run in content["runs"]] == list(NETWORKS)
    assert content["settings_that_differ"] == {}
    assert content["pairs"][2]["images"]["differences"]["auroc"]["interval"] is not None
    with (tmp_path / "out" / "deep" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == list(NETWORKS)
    assert [int(row["parameters"]) for row in rows] == [run.num_parameters for run in comparison.runs]
    assert float(rows[0]["image_auroc"]) == pytest.approx(comparison.runs[0].metrics.auroc)
    assert float(rows[0]["image_auroc_low"]) <= float(rows[0]["image_auroc_high"])


def test_figures_of_an_earlier_comparison_do_not_stay(plans, runs, tmp_path):
    with blank_figures():
        write_comparison(tmp_path, compare(read_compared_runs(plans), QUICK))
        (tmp_path / "own.png").write_bytes(b"")
        write_comparison(tmp_path, compare(read_compared_runs(runs), QUICK))
    pictures = {path.stem for path in tmp_path.glob("*.p??")}
    assert pictures == {"accuracy", "confusion", "roc", "subjects", "own"}


def test_names_that_a_spreadsheet_would_compute_are_safe(tmp_path):
    table = random_predictions(PEOPLE, 2, 0)
    paths = [write_run(tmp_path / "=1+1", table), write_run(tmp_path / "other", table)]
    with blank_figures():
        write_comparison(tmp_path / "out", compare(read_compared_runs(paths), QUICK))
    with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["'=1+1", "other"]


# --- the pixels behind the ids --------------------------------------------------------------------------------------


def write_digests(run: Path, digest_of: Callable[[str], str]) -> None:
    rows = read_predictions(run / "test" / "predictions.csv", ("hem", "all"))
    with (run / "split.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "subject", "label", "split", "pixel_digest"])
        columns = zip(rows["id"], rows["subject"], strict=True)
        writer.writerows([name, subject, PEOPLE[subject], "test", digest_of(name)] for name, subject in columns)


def test_equal_ids_of_different_pixels_are_not_paired(runs: list[Path]) -> None:
    for run, sign in zip(runs, "00f", strict=True):
        write_digests(run, lambda name, sign=sign: f"{sign}{zlib.crc32(name.encode()):031x}")
    first, second, third = read_compared_runs(runs)
    same, *others = compare([first, second, third], QUICK).pairs
    assert same.refusal is None
    for pair in others:
        assert "65 images have other pixels" in (pair.refusal or "")
        assert pair.images is None


def test_runs_without_digests_are_compared_with_a_caution(runs: list[Path]) -> None:
    write_digests(runs[0], lambda name: f"{zlib.crc32(name.encode()):032x}")
    comparison = compare(read_compared_runs(runs[:2]), QUICK)
    assert comparison.pairs[0].refusal is None
    [caution] = [sentence for sentence in comparison.cautions if "pixel digests" in sentence]
    assert caution.startswith("resnet34:")
