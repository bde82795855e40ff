from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.calibration import Calibration
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.predictions import evaluated_samples, read_predictions
from leukemia_models.evaluation.resampling import BootstrapSettings
from leukemia_models.reports.summary_page import EvaluatedNetwork, results_of_table, write_evaluated

from ..evaluated import CLASSES, SHARED, make_predictions, make_split

NETWORK = EvaluatedNetwork(
    model_name="resnet18",
    classes=CLASSES,
    settings={"epochs": 3},
    calibration=Calibration(temperature=2.0, threshold=0.4, fitted_on="valid", num_images=20),
)
FEW = BootstrapSettings(num_draws=100)


def test_results_are_those_of_the_labelled_rows() -> None:
    table = make_predictions(6)
    table.loc[0, "label"] = ""
    found = results_of_table(table, make_split(6), NETWORK, bootstrap=FEW)
    assert found.metrics.num_samples == 47
    assert set(found.intervals) == {"image", "subject_mean", "subject_vote"}
    assert found.subjects is not None
    assert found.subjects.table["images"].sum() == 47
    assert found.calibrated is not None
    odds = table["probability_all"] / (1 - table["probability_all"])
    scaled = (1 / (1 + odds**-0.5))[1:].to_numpy()
    expected = classification_metrics(
        (table["label"][1:] == "all").to_numpy(np.int64), np.stack([1 - scaled, scaled], axis=1), threshold=0.4
    )
    assert found.calibrated.metrics.nll == pytest.approx(expected.nll)
    assert found.calibrated.metrics.confusion == expected.confusion


def test_folder_holds_everything_and_every_table_its_stamp(tmp_path: Path) -> None:
    table, out = make_predictions(6), tmp_path / "runs" / "test"
    results = results_of_table(table, make_split(6, leaks=SHARED), NETWORK, bootstrap=FEW)
    write_evaluated(out, results, table, ("../history.png",))
    figures = {
        f"{name}.{suffix}" for name in ("confusion", "roc", "reliability", "subjects") for suffix in ("png", "pdf")
    }
    tables = {"predictions.csv", "subjects.csv"}
    assert {path.name for path in out.iterdir()} == figures | tables | {"results.json", "summary.md"}
    for name in tables:
        lines = (out / name).read_text(encoding="utf-8").splitlines()
        assert lines[0].endswith(",stamp")
        assert all("PATIENT-MIXED" in line for line in lines[1:])
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in summary for name in (*figures, "../history.png"))


def test_results_from_the_written_table_are_the_same(tmp_path: Path) -> None:
    table = make_predictions(6)
    results = results_of_table(table, make_split(6), NETWORK, bootstrap=FEW)
    write_evaluated(tmp_path, results, table)
    again = results_of_table(
        read_predictions(tmp_path / "predictions.csv", CLASSES), make_split(6), NETWORK, bootstrap=FEW
    )
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written["metrics"]["confusion"] == [list(row) for row in again.metrics.confusion]
    for name, value in again.metrics.values().items():
        assert written["metrics"][name] == pytest.approx(value, rel=1e-7)


def test_one_class_has_no_roc_curve(tmp_path: Path) -> None:
    table = make_predictions(6)
    table = table[table["label"] == "hem"]
    write_evaluated(tmp_path, results_of_table(table, make_split(6), NETWORK, bootstrap=FEW), table)
    assert not (tmp_path / "roc.png").exists()
    assert (tmp_path / "confusion.png").exists()


def test_unknown_subjects_have_no_figure(tmp_path: Path) -> None:
    table = make_predictions(6).assign(subject="")
    results = results_of_table(table, make_split(6), NETWORK, bootstrap=FEW)
    write_evaluated(tmp_path, results, table)
    assert not (tmp_path / "subjects.png").exists()
    assert set(results.intervals) == {"image"}
    assert "unknown" in str(results.intervals["image"].note)


def test_nothing_labelled_is_refused() -> None:
    table = make_predictions(2)
    table["label"] = ""
    with pytest.raises(UsageError, match="no image to evaluate has a label"):
        evaluated_samples(table, CLASSES)


def test_the_other_positive_class_turns_every_number_that_is_of_one_class(tmp_path: Path) -> None:
    table, split = make_predictions(6), make_split(6)
    usual = results_of_table(table, split, replace(NETWORK, calibration=None), bootstrap=FEW)
    turned = results_of_table(table, split, replace(NETWORK, classes=CLASSES[::-1], calibration=None), bootstrap=FEW)
    assert (usual.positive, turned.positive) == ("all", "hem")
    assert turned.metrics.sensitivity == usual.metrics.specificity
    assert turned.metrics.specificity == usual.metrics.sensitivity
    assert turned.metrics.balanced_accuracy == usual.metrics.balanced_accuracy
    assert turned.metrics.auroc == pytest.approx(usual.metrics.auroc)
    is_hem = (table["label"] == "hem").to_numpy()
    assert turned.metrics.auprc == pytest.approx(average_precision_score(is_hem, table["probability_hem"]))
    assert turned.metrics.auprc != pytest.approx(usual.metrics.auprc)
    write_evaluated(tmp_path, turned, table)
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "sensitivity (recall of `hem`)" in page
    assert "specificity (recall of `all`)" in page
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["positive"] == "hem"
    rows = pd.read_csv(tmp_path / "subjects.csv")
    assert set(rows["label"]) == {"hem", "all"}
    assert "mean_probability_hem" in rows.columns
