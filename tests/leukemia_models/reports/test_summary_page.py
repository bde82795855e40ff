from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.evaluation.calibration import Calibration
from leukemia_models.evaluation.metrics import METRICS, Metric
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.reports.results import Results, cautions
from leukemia_models.reports.summary_page import EvaluatedNetwork, results_of_table, summary_text, write_evaluated

from ..evaluated import CLASSES, NO_LEAK, SHARED, make_predictions, make_split

SETTINGS = {"epochs": 3, "optimizer": {"lr": 0.005, "betas": None}, "note": "a|b"}
CALIBRATION = Calibration(temperature=1.5, threshold=0.42, fitted_on="valid", num_images=300, note="Few of them.")
JUDGING = {
    "checkpoint": "best",
    "tta": {"views": "d4", "average": "logits"},
    "batchnorm": {"mode": "auto", "chosen": "running", "running": {"loss": 0.5}},
}


def results_of(num_subjects: int, leaks: LeakCheck = NO_LEAK, calibration: Calibration | None = None) -> Results:
    network = EvaluatedNetwork(
        model_name="resnet18",
        classes=CLASSES,
        settings=SETTINGS,
        epoch=2,
        judging=JUDGING,
        calibration=calibration,
        notes=("A note.",),
    )
    return results_of_table(
        make_predictions(num_subjects),
        make_split(num_subjects, leaks=leaks),
        network,
        bootstrap=BootstrapSettings(num_draws=200),
    )


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(12, calibration=CALIBRATION)


def rows_of(text: str) -> dict[str, list[str]]:
    """First cell and the others of every table row; of rows with the same first cell the first."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in reversed(lines)}


def test_a_registered_metric_has_a_row_with_an_interval() -> None:
    f2 = Metric(name="f2", title="F2", value=lambda o: float(fbeta_score(o.labels_N, o.predictions_N, beta=2)))
    with METRICS.temporarily("f2", f2):
        found = results_of(12)
        value, interval, always = rows_of(summary_text(found))["F2"]
    low, high = found.intervals["image"].intervals["f2"].low, found.intervals["image"].intervals["f2"].high
    assert float(value) == pytest.approx(found.metrics.others["f2"], abs=1e-3)
    assert f"{low:.3f}" in interval
    assert f"{high:.3f}" in interval
    assert always == "-"


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}")[1].split("\n## ")[0]


def test_page_holds_metrics_intervals_and_baseline(results: Results) -> None:
    text = summary_text(results)
    rows = rows_of(section(text, "Results per image"))
    interval = results.intervals["image"].intervals["balanced_accuracy"]
    assert rows["balanced accuracy"] == [
        f"{results.metrics.balanced_accuracy:.3f}",
        f"{interval.low:.3f} - {interval.high:.3f}",
        "0.500",
    ]
    assert rows["per image"] == ["resnet18", "95 % interval", "always `all`"]
    assert rows["specificity (recall of `hem`)"][2] == "0.000"
    assert rows["sensitivity (recall of `all`)"][2] == "1.000"
    assert rows["weighted F1"][2] == "0.333"  # 0.5 * 2/3
    assert rows["ECE"] == [f"{results.metrics.ece:.3f}", "-", "-"]
    assert "200 resamples of the subjects (12 of class `hem` and 12 of class `all`), seed 0" in text
    assert "A note." in text


def test_page_holds_every_subject(results: Results) -> None:
    rows = rows_of(section(summary_text(results), "Results per subject"))
    assert rows["subjects"] == ["24", "", "24"]
    assert rows["Brier score"][2:] == ["-", "-"]
    assert rows["H0"][:2] == ["hem", "4"]
    assert {f"H{n}" for n in range(0, 24, 2)} | {str(n) for n in range(1, 24, 2)} <= rows.keys()


def test_calibrated_row_stands_beside_the_main_one(results: Results) -> None:
    text = section(summary_text(results), "Calibrated")
    assert "temperature 1.500 and then the threshold 0.420 of P(`all`), both fitted on 300 valid images" in text
    assert "Few of them." in cautions(results)
    assert results.calibrated is not None
    rows = rows_of(text)
    assert rows["NLL"][:2] == [f"{results.metrics.nll:.3f}", f"{results.calibrated.metrics.nll:.3f}"]
    assert results.calibrated.metrics.threshold == 0.42
    assert results.metrics.threshold == 0.5


def test_page_holds_counts_settings_evaluation_and_figures(results: Results) -> None:
    text = summary_text(results, ["roc.png", "../history.png"])
    rows = rows_of(text)
    assert rows["train"] == ["30", "60", "9", "20"]
    assert rows["test (evaluated)"] == ["48", "48", "12", "12"]
    assert rows["optimizer.lr"] == ["0.005"]
    assert "optimizer.betas" not in rows
    assert rows["tta.views"] == ["d4"]
    assert "batchnorm.running.loss" not in rows
    assert "a\\|b" in text
    assert "- [roc.png](roc.png), as vectors [roc.pdf](roc.pdf)" in text
    assert "[../history.pdf](../history.pdf)" in text


def test_every_section_with_numbers_is_stamped() -> None:
    text = summary_text(results_of(12, SHARED, CALIBRATION))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    stamped = [line for line in headings if "PATIENT-MIXED" in line]
    assert [line.split(" (")[0] for line in stamped] == [
        "## Results per image",
        "## Results per subject",
        "## Calibrated",
        "## Data",
    ]
    assert "0.83 to 0.91 weighted F1" in text


def test_cautions_stand_above_the_numbers() -> None:
    few = results_of(4)
    text = summary_text(few)
    [sentence] = cautions(few)
    assert text.index(sentence) < text.index("## Results per image")
    assert "No intervals" in section(text, "Results per image")
    assert rows_of(text)["AUROC"][1] == "-"


def test_undefined_numbers_are_words() -> None:
    table = make_predictions(6)
    network = EvaluatedNetwork(model_name="resnet18", classes=CLASSES, settings={})
    one_class = results_of_table(table[table["label"] == "all"], make_split(6), network)
    rows = rows_of(section(summary_text(one_class), "Results per image"))
    assert rows["AUROC"] == rows["specificity (recall of `hem`)"] == ["undefined", "-", "undefined"]
    assert rows["sensitivity (recall of `all`)"][1] != "-"


def test_unknown_and_mixed_subjects_are_reported() -> None:
    table = make_predictions(6)
    table.loc[:2, "subject"] = ""
    table.loc[3, "subject"] = "1"
    network = EvaluatedNetwork(model_name="resnet18", classes=CLASSES, settings={})
    found = results_of_table(table, make_split(6), network)
    text = section(summary_text(found), "Results per subject")
    assert "3 images of unknown subjects are left out here." in text
    assert "1 subjects with images of both classes are left out here: `1`." in text
    assert rows_of(text)["1"][0] == "both"
    no_names = results_of_table(table.assign(subject=""), make_split(6), network)
    assert "No subject of the evaluated images is known." in summary_text(no_names)


def test_many_subjects_are_left_to_the_file() -> None:
    network = EvaluatedNetwork(model_name="resnet18", classes=CLASSES, settings={})
    found = results_of_table(
        make_predictions(50, 1), make_split(50, 1), network, bootstrap=BootstrapSettings(num_draws=100)
    )
    text = summary_text(found)
    assert "[subjects.csv](subjects.csv)" in text
    assert "H98" not in text


def test_summary_survives_a_path_that_is_no_utf8(results: Results, tmp_path: Path) -> None:
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_evaluated(tmp_path, replace(results, settings={"out": odd}), make_predictions(12))
    assert "caf\\udce9" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_page_without_subjects_and_intervals_is_written(results: Results) -> None:
    text = summary_text(replace(results, subjects=None, intervals={}, calibrated=None, judging={}))
    assert "Results per subject" not in text
    assert np.all([heading not in text for heading in ("Calibrated", "Judged with")])
