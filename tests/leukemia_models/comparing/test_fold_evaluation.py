"""Pooled folds: every image held out once, metrics of single folds, their spread, and output."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from leukemia_data.errors import RunError
from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.comparing.fold_evaluation import (
    CrossValidation,
    Spread,
    cross_validate,
    find_folds,
    fold_metrics,
    read_fold,
    require_each_once,
)
from leukemia_models.comparing.fold_report import cross_validation_text, draw_folds, folds_table, pool_folds
from leukemia_models.evaluation.metrics import MAIN_METRICS
from leukemia_models.evaluation.predictions import read_predictions
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.reports.style import lay_out
from leukemia_models.runs.run_folder import is_kfold

from ..finished_runs import CLASSES, predictions_of, random_predictions, write_config, write_fold, write_part

EVERYONE = {**{str(k): 1 for k in range(1, 13)}, **{f"H{k}": 0 for k in range(1, 13)}}
IMAGES_EACH = 4
QUICK = BootstrapSettings(num_draws=100)


def people_of_fold(fold: int, num_folds: int) -> dict[str, int]:
    return {subject: label for n, (subject, label) in enumerate(EVERYONE.items()) if n % num_folds == fold - 1}


@pytest.fixture(scope="module")
def fold_dirs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three folds by subject, with networks of different quality. Read them, never change them."""
    root = tmp_path_factory.mktemp("kfold")
    return [
        write_fold(
            root / f"fold-{fold}",
            random_predictions(people_of_fold(fold, 3), IMAGES_EACH, fold, strength=fold),
            EVERYONE,
            IMAGES_EACH,
            split=f"test-fold:{fold}/3",
        )
        for fold in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def written(fold_dirs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossValidation, Path]:
    out = tmp_path_factory.mktemp("out") / "pooled-folds"
    return pool_folds(fold_dirs, out, QUICK), out


@pytest.fixture
def own_dirs(fold_dirs: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in fold_dirs]


# --- numbers ----------------------------------------------------------------------------------------------------


def test_each_fold_is_evaluated_with_itself(fold_dirs):
    result = cross_validate([read_fold(path) for path in fold_dirs], QUICK)
    for path, fold in zip(fold_dirs, result.folds, strict=True):
        table = read_predictions(path / "test" / "predictions.csv", CLASSES)
        labels, calls = table["label"] == "all", table["probability_all"] > 0.5
        assert fold.values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, calls))
        assert fold.values["auroc"] == pytest.approx(roc_auc_score(labels, table["probability_all"]))
        assert (fold.images_per_class, fold.subjects_per_class) == ((16, 16), (4, 4))


def test_mean_and_spread_count_each_fold_once(fold_dirs):
    result = cross_validate([read_fold(path) for path in fold_dirs], QUICK)
    values = [fold.values["auroc"] for fold in result.folds]
    spread = result.spread["auroc"]
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.sd == pytest.approx(np.std(values, ddof=1))
    assert (spread.low, spread.high) == (min(values), max(values))
    assert (spread.num_folds, spread.num_undefined) == (3, 0)


def test_undefined_values_are_counted_and_not_averaged():
    assert Spread.of([0.5, None, 1.0]) == Spread(
        mean=0.75, sd=pytest.approx(0.125**0.5), low=0.5, high=1.0, num_folds=2, num_undefined=1
    )
    assert Spread.of([0.5, None]) == Spread(mean=0.5, sd=None, low=0.5, high=0.5, num_folds=1, num_undefined=1)
    assert Spread.of([None]) == Spread(mean=None, sd=None, low=None, high=None, num_folds=0, num_undefined=1)


def test_pooled_numbers_are_of_all_images_together(written, fold_dirs):
    result, _ = written
    tables = pd.concat([read_predictions(path / "test" / "predictions.csv", CLASSES) for path in fold_dirs])
    labels = tables["label"] == "all"
    assert result.pooled.metrics.num_samples == len(EVERYONE) * IMAGES_EACH
    assert result.pooled.metrics.auroc == pytest.approx(roc_auc_score(labels, tables["probability_all"]))
    assert result.pooled.metrics.auroc != pytest.approx(result.spread["auroc"].mean)
    assert result.pooled.subjects is not None
    assert len(result.pooled.subjects.table) == len(EVERYONE)


def test_pooling_differently_scaled_networks_lowers_auroc_and_the_mean_over_folds_stands_beside_it(tmp_path):
    # Each network separates its own fold perfectly, but the second calls everything above 0.8.
    people = [{"1": 1, "H1": 0}, {"2": 1, "H2": 0}]
    levels = [{"1": [0.3, 0.4], "H1": [0.1, 0.2]}, {"2": [0.95, 0.98], "H2": [0.85, 0.9]}]
    everyone = {**people[0], **people[1]}
    folds = [
        read_fold(
            write_fold(
                tmp_path / f"fold-{k}",
                predictions_of(people[k], 2, levels[k]),
                everyone,
                2,
                split=f"test-fold:{k + 1}/2",
            )
        )
        for k in (0, 1)
    ]
    result = cross_validate(folds, QUICK)
    assert result.spread["auroc"].mean == 1
    assert result.pooled.metrics.auroc == pytest.approx(0.75)
    assert "AUROC is 1.000 in the mean of 2 folds" in cross_validation_text(result)


def test_a_fold_of_one_class_has_its_recall_only(tmp_path):
    people = {"7": 1}
    table = predictions_of(people, 4, {"7": [0.9, 0.8, 0.2, 0.7]})
    fold = read_fold(write_fold(tmp_path / "fold-1", table, {**people, "H1": 0}, 4, split="leave-out:7"))
    metrics = fold_metrics(fold)
    assert {name: value for name, value in metrics.values.items() if value is not None} == {"sensitivity": 0.75}
    assert (metrics.images_per_class, metrics.subjects_per_class) == ((0, 4), (0, 1))


def test_leaving_one_subject_out(tmp_path):
    dirs = [
        write_fold(
            tmp_path / f"fold-{n}",
            random_predictions({subject: label}, 3, n),
            EVERYONE,
            3,
            split=f"leave-out:{subject}",
        )
        for n, (subject, label) in enumerate(EVERYONE.items(), 1)
    ]
    result = cross_validate([read_fold(path) for path in dirs], QUICK)
    assert result.name == "one subject out, 24 folds"
    assert result.num_one_class_folds == 24
    spread = result.spread["sensitivity"]
    assert (spread.num_folds, spread.num_undefined) == (12, 12)
    assert spread.mean == pytest.approx(result.pooled.metrics.sensitivity)
    assert result.spread["auroc"].mean is None
    assert result.pooled.metrics.auroc is not None
    page = cross_validation_text(result)
    assert "24 of 24 folds hold out one class alone" in page
    assert "no fold holds both classes" in page
    assert "no fold alone defines it" in result.text()


# --- what is written --------------------------------------------------------------------------------------------


def test_every_image_is_written_once_with_its_fold(written, fold_dirs):
    _, out = written
    with (out / "predictions.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    assert sorted(table["id"]) == sorted(f"{subject}/{n}" for subject in EVERYONE for n in range(IMAGES_EACH))
    for path in fold_dirs:
        own = read_predictions(path / "test" / "predictions.csv", CLASSES)
        mine = table[table["fold"] == path.name]
        assert list(mine["id"]) == list(own["id"])
        np.testing.assert_allclose(mine["probability_all"], own["probability_all"])
    assert set(table["stamp"]) == {"subject-disjoint"}


def test_results_and_page(written):
    result, out = written
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert content["name"] == "3 folds by subject"
    assert [fold["name"] for fold in content["folds"]] == ["fold-1", "fold-2", "fold-3"]
    assert content["spread"]["auroc"]["mean"] == pytest.approx(result.spread["auroc"].mean)
    assert content["pooled"]["split"]["judged"] == "out-of-fold"
    page = (out / "summary.md").read_text(encoding="utf-8")
    assert f"| AUROC | {result.spread['auroc'].mean:.3f} |" in page
    assert "compare the probabilities of different networks" in page.replace("\n", " ")
    assert "no standard error" in page
    assert page.count("subject-disjoint") >= 4
    assert {path.name for path in (out / "pooled").iterdir()} >= {
        "summary.md",
        "results.json",
        "predictions.csv",
        "roc.png",
    }
    assert (out / "folds.png").is_file()
    assert (out / "folds.pdf").is_file()


def test_long_class_names_do_not_overlap(written):
    result, _ = written
    classes = ("Healthy donors from the reference laboratory (control)", "Acute lymphoblastic leukaemia, pre-B")
    figure = draw_folds(replace(result, pooled=replace(result.pooled, classes=classes)))
    lay_out(figure)
    extents = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(extents))
    assert all(extent.x0 >= 0 and extent.y0 >= 0 for extent in extents)


def test_numbers_of_perfect_folds_stand_inside_the_figure(written):
    result, _ = written
    perfect = [replace(fold, values=dict.fromkeys(fold.values, 1.0)) for fold in result.folds]
    figure = draw_folds(replace(result, folds=perfect))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    [axes] = figure.axes
    renderer = canvas.get_renderer()
    numbers = [text.get_window_extent(renderer).y1 for text in axes.texts]
    assert len(numbers) == 3 * len(MAIN_METRICS)
    assert max(numbers) < axes.get_window_extent(renderer).y1
    assert max(axes.get_yticks()) == 1


def test_settings_common_to_folds_are_kept(written):
    result, _ = written
    assert result.pooled.settings == {"size_px": 32, "recipe": "raw", "batch_size": 8}
    assert result.pooled.judging == {"tta": "none"}
    assert result.pooled.epoch is None


def test_one_row_a_fold(written):
    result, out = written
    table = folds_table(result)
    assert list(table["fold"]) == ["fold-1", "fold-2", "fold-3"]
    assert list(table["images_hem"]) == [16, 16, 16]
    assert (
        (out / "folds.csv")
        .read_text(encoding="utf-8")
        .startswith("fold,split,epoch,positive,images_hem,images_all,subjects_hem")
    )


def test_the_worst_fold_stamps_all(own_dirs):
    leaks = LeakCheck(0, 5, 0)
    table = read_predictions(own_dirs[1] / "test" / "predictions.csv", CLASSES).drop(columns="stamp")
    write_part(own_dirs[1], table, split="test-fold:2/3", leaks=leaks)
    result = cross_validate([read_fold(path) for path in own_dirs], QUICK)
    assert result.stamp == leaks.stamp
    assert [fold.stamp for fold in result.folds] == ["subject-disjoint", leaks.stamp, "subject-disjoint"]
    page = cross_validation_text(result)
    assert "nothing about new patients" in page
    assert page.count("PATIENT-MIXED") >= 5
    assert "PATIENT-MIXED" in result.text()


# --- folds that do not belong together ------------------------------------------------------------------------------


def test_cautions_of_all_folds_are_given_once(own_dirs):
    for number, folder in enumerate(own_dirs):
        path = folder / "test" / "results.json"
        content = json.loads(path.read_text()) | {"warnings": ["Frames tell.", f"Only fold {number}."]}
        path.write_text(json.dumps(content))
    assert cross_validate([read_fold(path) for path in own_dirs], QUICK).pooled.warnings == ("Frames tell.",)


def test_an_image_held_out_twice(own_dirs):
    folds = [read_fold(path) for path in own_dirs]
    with pytest.raises(RunError, match=r"32 images are held out more than once.*fold-1, fold-1"):
        require_each_once([folds[0], *folds])


def test_a_missing_fold(own_dirs):
    with pytest.raises(RunError, match="32 labelled images are held out in none of the 2 folds, first 12/0"):
        require_each_once([read_fold(path) for path in own_dirs[:2]])


def test_one_fold_alone(own_dirs):
    with pytest.raises(RunError, match="two folds at least"):
        require_each_once([read_fold(own_dirs[0])])


def test_folds_of_another_kind(own_dirs):
    table = read_predictions(own_dirs[1] / "test" / "predictions.csv", CLASSES).drop(columns="stamp")
    write_part(own_dirs[1], table, split="test-fold:2/5")
    with pytest.raises(RunError, match="test-fold:1/3 and test-fold:2/5"):
        require_each_once([read_fold(path) for path in own_dirs])


def test_predictions_of_other_images(own_dirs):
    table = read_predictions(own_dirs[0] / "test" / "predictions.csv", CLASSES).drop(columns="stamp")
    write_part(own_dirs[0], table.iloc[:-1], split="test-fold:1/3")
    with pytest.raises(RunError, match=r"31 labelled images.*32 that the fold's split.csv holds out"):
        read_fold(own_dirs[0])


@pytest.mark.parametrize("name", ["test/predictions.csv", "test/results.json", "split.csv"])
def test_missing_files_are_named(own_dirs, name):
    (own_dirs[0] / name).unlink()
    with pytest.raises(RunError, match=Path(name).name):
        read_fold(own_dirs[0])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"split": 3}'])
def test_damaged_results_are_named(own_dirs, content):
    (own_dirs[0] / "test" / "results.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=r"results\.json"):
        read_fold(own_dirs[0])


@pytest.mark.parametrize("change", [{"judging": "d4"}, {"split": {"leaks": []}}, {"split": {"leaks": {"a": 1}}}])
def test_results_of_a_fold_with_other_values_are_refused(own_dirs, change):
    path = own_dirs[0] / "test" / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    split = {**content["split"], **change.get("split", {})}
    path.write_text(json.dumps({**content, **change, "split": split}), encoding="utf-8")
    with pytest.raises(RunError, match=r"results\.json is damaged"):
        read_fold(own_dirs[0])


def test_a_damaged_split_is_named(own_dirs):
    (own_dirs[0] / "split.csv").write_text("id,subject,label,split\n1,a,x,train\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"split\.csv cannot be read"):
        read_fold(own_dirs[0])


# --- folders ----------------------------------------------------------------------------------------------------


def test_folds_are_found_in_the_order_of_their_numbers(tmp_path):
    for name in ("fold-10", "fold-2", "fold-01", "fold-x", "pooled"):
        write_config(tmp_path / name)
    (tmp_path / "fold-3").write_text("", encoding="utf-8")
    assert [path.name for path in find_folds(tmp_path)] == ["fold-01", "fold-2", "fold-10"]
    assert not is_kfold(tmp_path)
    (tmp_path / "kfold.json").write_text("{}", encoding="utf-8")
    assert is_kfold(tmp_path)


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_a_folder_without_folds(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no folds"):
        find_folds(tmp_path / name)
