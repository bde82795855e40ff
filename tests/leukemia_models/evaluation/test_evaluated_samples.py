from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.calibration import fit_temperature, fit_threshold
from leukemia_models.evaluation.classification import classification_metrics, majority_baseline
from leukemia_models.evaluation.curves import reliability_bins
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples

SAMPLES = EvaluatedSamples(("a", "b", "c"), ("1", "", "H1"), np.array([1, 1, 0]), np.array([0.9, 0.4, 0.2]))


def test_rows_are_taken_in_the_requested_order() -> None:
    found = SAMPLES.take(np.array([2, 0]))
    assert (found.ids, found.subjects) == (("c", "a"), ("H1", "1"))
    assert found.labels_N.tolist() == [0, 1]
    assert found.probabilities_NK == pytest.approx(np.array([[0.8, 0.2], [0.1, 0.9]]))
    assert len(SAMPLES) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ids": ("a",)}, "differ in number"),
        ({"labels_N": np.array([0, 1, 2])}, "0 or 1"),
        ({"probabilities_NK": np.array([0.5, 0.5, 1.5])}, r"\[0, 1\]"),
        ({"probabilities_NK": np.array([0.5, 0.5, np.nan])}, r"\[0, 1\]"),
        ({"ids": (), "subjects": (), "labels_N": np.zeros(0, int), "probabilities_NK": np.zeros(0)}, "has a label"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvaluatedSamples(**{**vars(SAMPLES), **values})


# --- arguments ------------------------------------------------------------------------------------------------

LABELS, PROBABILITIES = [0, 1, 1, 0, 1], [0.1, 0.4, 0.9, 0.6, 0.8]
FUNCTIONS = {
    "fit_temperature": fit_temperature,
    "fit_threshold": fit_threshold,
    "reliability": lambda labels, found: reliability_bins(labels, found).calibration_error,
    "baseline": lambda labels, _: majority_baseline(labels).accuracy,
    "metrics": lambda labels, found: (
        classification_metrics(labels, np.stack([1 - np.asarray(found), np.asarray(found)], axis=1).tolist()).brier
    ),
    "samples": lambda labels, found: (
        EvaluatedSamples(tuple("abcde"), tuple("vwxyz"), labels, found).take([4, 0]).probabilities_N.tolist()
    ),
}


def shuffled(values):
    """A column whose labels are not the positions."""
    return pd.Series(values, index=[3, 0, 4, 1, 2])


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("form", [list, shuffled, torch.tensor])
def test_lists_columns_and_tensors_are_their_values(name, form):
    function = FUNCTIONS[name]
    expected = function(np.array(LABELS), np.array(PROBABILITIES))
    found = torch.tensor(PROBABILITIES, dtype=torch.float64) if form is torch.tensor else form(PROBABILITIES)
    assert function(form(LABELS), found) == expected


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("labels", [[0.0, 1.0, 1.0, 0.0, 1.0], list("01101"), [0, 1, 1, 0, None]])
def test_what_are_no_labels_is_refused_by_name(name, labels):
    with pytest.raises(UsageError, match="labels_N must be whole numbers"):
        FUNCTIONS[name](labels, PROBABILITIES)


@pytest.mark.parametrize("name", ["fit_temperature", "fit_threshold", "reliability", "samples"])
@pytest.mark.parametrize("wrong", [PROBABILITIES[:4], [0.1, 0.2, 0.3, 0.4, np.nan], [0.1, 0.2, 0.3, 0.4, 1.5]])
def test_probabilities_of_another_length_or_range_are_refused(name, wrong):
    with pytest.raises(UsageError, match="probabilities"):
        FUNCTIONS[name](LABELS, wrong)


@pytest.mark.parametrize("rows", [[-1], [5], [0.5], [True, False]])
def test_rows_that_are_not_there_are_refused(rows):
    samples = EvaluatedSamples(tuple("abcde"), tuple("vwxyz"), LABELS, PROBABILITIES)
    with pytest.raises(UsageError, match="rows must be"):
        samples.take(rows)
