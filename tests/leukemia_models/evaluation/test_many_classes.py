"""Evaluations of any number of classes, compared with scikit-learn and with direct computations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import (
    accuracy_score,
    auc,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.bootstrap import drawn_metrics, paired_bootstrap, subject_bootstrap
from leukemia_models.evaluation.calibration import fit_calibration, scaled_probabilities
from leukemia_models.evaluation.classification import classification_metrics, majority_baseline
from leukemia_models.evaluation.curves import mean_roc, reliability_bins, roc_of_class
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.metrics import METRICS, Outcome, metric_names, metric_title
from leukemia_models.evaluation.predictions import (
    Predictions,
    evaluated_samples,
    predictions_table,
    read_predictions,
    write_submission,
    write_table,
)
from leukemia_models.evaluation.resampling import BootstrapSettings, bootstrapped_metrics, subject_groups
from leukemia_models.evaluation.subject_level import subject_level, subject_samples, with_class_names

SETTINGS = BootstrapSettings(num_draws=100)


def names(num_classes: int) -> tuple[str, ...]:
    return tuple(f"class {chr(97 + label)}" for label in range(num_classes))


def cells(num_classes: int, *, per_class: int = 40, subjects_per_class: int = 6, seed: int = 0) -> EvaluatedSamples:
    """Samples that are better than chance, of subjects with one class each; probabilities of nine digits, with ties."""
    generator = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(num_classes), per_class)
    logits_NK = generator.normal(size=(len(labels_N), num_classes))
    logits_NK[np.arange(len(labels_N)), labels_N] += 1
    probabilities_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True)
    probabilities_NK[::7] = probabilities_NK[0]
    subjects = tuple(f"{label}-{number % subjects_per_class}" for number, label in enumerate(labels_N.tolist()))
    return EvaluatedSamples(tuple(map(str, range(len(labels_N)))), subjects, labels_N, probabilities_NK)


@pytest.mark.parametrize("num_classes", [2, 5, 15])
def test_metrics_equal_scikit_learns(num_classes: int) -> None:
    samples = cells(num_classes)
    labels, probabilities = samples.labels_N, samples.probabilities_NK
    predictions = samples.predictions_N()
    found = classification_metrics(labels, probabilities, names(num_classes))
    scores = probabilities[:, 1] if num_classes == 2 else probabilities
    one_hot = np.eye(num_classes)[labels]
    expected = {
        "balanced_accuracy": balanced_accuracy_score(labels, predictions),
        "weighted_f1": f1_score(labels, predictions, average="weighted"),
        "macro_f1": f1_score(labels, predictions, average="macro"),
        "auroc": roc_auc_score(labels, scores, multi_class="ovr"),
        "auprc": average_precision_score(labels if num_classes == 2 else one_hot, scores),
        "mcc": matthews_corrcoef(labels, predictions),
        "accuracy": accuracy_score(labels, predictions),
        "brier": brier_score_loss(labels, scores),
        "nll": log_loss(labels, probabilities),
    }
    assert {name: found.values()[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found.confusion == tuple(map(tuple, confusion_matrix(labels, predictions).tolist()))
    assert found.recall_per_class == pytest.approx(recall_score(labels, predictions, average=None).tolist())


@pytest.mark.parametrize("num_classes", [2, 5, 15])
def test_each_class_is_measured_against_the_rest(num_classes: int) -> None:
    samples = cells(num_classes)
    predictions = samples.predictions_N()
    found = classification_metrics(samples.labels_N, samples.probabilities_NK, names(num_classes)).per_class
    for label, each in enumerate(found):
        is_class, is_called = samples.labels_N == label, predictions == label
        scores = samples.probabilities_NK[:, label]
        expected = {
            "support": is_class.sum(),
            "recall": recall_score(is_class, is_called),
            "precision": precision_score(is_class, is_called),
            "specificity": recall_score(~is_class, ~is_called),
            "f1": f1_score(is_class, is_called),
            "auroc": roc_auc_score(is_class, scores),
            "auprc": average_precision_score(is_class, scores),
        }
        assert vars(each) == pytest.approx(expected, abs=1e-12)


def test_the_calibration_error_of_many_classes_is_that_of_the_most_probable_one() -> None:
    """Of four predictions, two with 0.6 (one right), one with 0.8 (right), one with 0.4 (wrong)."""
    probabilities = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3]])
    found = reliability_bins(np.array([0, 2, 2, 1]), probabilities, num_bins=10)
    assert found.counts_M.tolist() == [0, 0, 0, 0, 1, 0, 2, 0, 1, 0]
    assert found.calibration_error == pytest.approx((abs(1.2 - 1) + abs(0.8 - 1) + 0.4) / 4)


def test_classes_without_samples_are_left_out_of_means() -> None:
    """The second class has neither samples nor predictions."""
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.6, 0.2, 0.2]])
    found = classification_metrics(np.array([0, 2, 0, 2]), probabilities, names(3))
    assert found.balanced_accuracy == 0.5
    assert found.macro_f1 == f1_score([0, 2, 0, 2], [0, 2, 2, 0], average="macro")
    assert found.auroc == pytest.approx((3 / 4 + 2.5 / 4) / 2)
    assert found.recall_per_class == (0.5, None, 0.5)
    assert found.per_class[1].auroc is None


def test_one_class_alone_has_no_means() -> None:
    found = classification_metrics(np.array([1, 1]), np.array([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2]]), names(3))
    assert (found.balanced_accuracy, found.macro_f1, found.auroc, found.mcc) == (None, None, None, None)
    assert found.accuracy == 0.5


def test_sensitivity_is_of_two_classes() -> None:
    found = classification_metrics(*_arguments(cells(3)))
    assert "sensitivity" not in found.values()
    assert "sensitivity" not in found.to_dict()
    assert {*metric_names(2)} - {*metric_names(3)} == {"sensitivity", "specificity"}
    assert metric_title("auroc", names(3)) == "AUROC (mean of classes, one against the rest)"
    assert metric_title("auroc", names(2)) == "AUROC"


def _arguments(samples: EvaluatedSamples) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    return samples.labels_N, samples.probabilities_NK, names(samples.num_classes)


def test_always_the_largest_class() -> None:
    labels = np.array([0, 2, 2, 1, 2, 0])
    found = majority_baseline(labels, 3)
    assert (found.prediction, found.accuracy) == (2, 0.5)
    assert found.weighted_f1 == pytest.approx(f1_score(labels, np.full(6, 2), average="weighted", zero_division=0))
    assert found.auprc == pytest.approx(1 / 3)


@pytest.mark.parametrize(("num_other", "warns"), [(0, True), (1, True), (3, False)])
def test_nearly_one_prediction_alone_is_warned_of(num_other: int, warns: bool) -> None:
    labels = np.arange(120) % 3
    probabilities = np.eye(3)[[1] * num_other + [2] * (120 - num_other)]
    warning = classification_metrics(labels, probabilities, names(3)).one_class_warning
    assert (warning is not None) == warns
    if warning is not None:
        assert "'class c' although the labels hold 3 classes" in warning


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_metrics_of_draws_are_those_of_repeated_samples(num_classes: int) -> None:
    samples = cells(num_classes, per_class=10, subjects_per_class=5)
    groups = subject_groups(samples)
    assert groups is not None
    draws = groups.draw(SETTINGS)[:10]
    if num_classes > 2:
        # Subjects of several classes can leave one out of a draw.
        draws[0][groups.stratum_S == num_classes - 1] = 0
    found = drawn_metrics(samples, groups.subject_N, draws, 0.5)
    assert set(found) == set(bootstrapped_metrics(num_classes))
    for number, draw in enumerate(draws):
        repeats = draw[groups.subject_N]
        outcome = Outcome(np.repeat(samples.labels_N, repeats), np.repeat(samples.probabilities_NK, repeats, axis=0))
        for name, values in found.items():
            expected = METRICS.get(name).of(outcome)
            assert expected is not None
            assert values[number] == pytest.approx(expected, abs=1e-9), name


def test_intervals_need_subjects_of_every_class_that_has_any() -> None:
    enough = subject_bootstrap(cells(4), settings=SETTINGS, classes=names(4))
    assert enough.subjects_per_class == (6, 6, 6, 6)
    assert set(enough.intervals) == set(bootstrapped_metrics(4))
    few = subject_bootstrap(cells(4, subjects_per_class=4), settings=SETTINGS, classes=names(4))
    assert not few.intervals
    assert few.note is not None
    assert "4 of class 'class d'" in few.note


def test_subjects_of_several_classes_are_drawn_from_all() -> None:
    """A differential count: every subject has cells of every class."""
    samples = cells(4)
    subjects = tuple(f"P{number % 9}" for number in range(len(samples)))
    groups = subject_groups(EvaluatedSamples(samples.ids, subjects, samples.labels_N, samples.probabilities_NK))
    assert groups is not None
    assert groups.per_class == (9, 9, 9, 9)
    assert set(groups.draw(SETTINGS).sum(axis=1)) == {9}
    assert len(np.unique(groups.stratum_S)) == 1


def test_two_networks_of_many_classes_are_compared() -> None:
    samples = cells(5)
    found = paired_bootstrap(
        samples, cells(5, seed=1).take(np.arange(len(samples))), settings=SETTINGS, classes=names(5)
    )
    assert set(found.differences) == set(metric_names(5))
    same = paired_bootstrap(samples, samples, settings=SETTINGS, classes=names(5))
    assert all(each.difference == 0 for each in same.differences.values())
    with pytest.raises(UsageError, match="5 and 4 classes"):
        paired_bootstrap(samples, cells(4), settings=SETTINGS)


# --- calibration, curves --------------------------------------------------------------------------------------------


def test_the_temperature_of_many_classes_minimises_the_likelihood_of_scaled_logits() -> None:
    samples = cells(5)
    sharp = samples.with_probabilities(scaled_probabilities(samples.probabilities_NK, 0.4))
    found = fit_calibration(sharp, fitted_on="valid", classes=names(5))

    def nll(temperature: float) -> float:
        scaled = sharp.probabilities_NK ** (1 / temperature)
        return log_loss(sharp.labels_N, scaled / scaled.sum(axis=1, keepdims=True))

    assert found.temperature == pytest.approx(minimize_scalar(nll, bounds=(0.1, 10), method="bounded").x, rel=1e-4)
    assert found.threshold == 0.5
    applied = found.apply(sharp)
    assert applied.predictions_N().tolist() == samples.predictions_N().tolist()
    assert applied.probabilities_NK.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_area_of_the_mean_curve_is_the_mean_of_the_areas(num_classes: int) -> None:
    samples = cells(num_classes)
    labels = [1] if num_classes == 2 else range(num_classes)
    areas = [auc(*roc_of_class(samples, label)) for label in labels]
    false_rates, true_rates = mean_roc(samples)
    assert auc(false_rates, true_rates) == pytest.approx(np.mean(areas), abs=1e-12)
    assert (np.diff(false_rates) >= 0).all()
    assert (np.diff(true_rates) >= -1e-12).all()


# --- subjects -------------------------------------------------------------------------------------------------------


def test_subjects_of_many_classes_by_hand() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.5, 0.4], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6], [0.7, 0.2, 0.1]])
    samples = EvaluatedSamples(tuple("abcde"), ("P", "P", "P", "Q", ""), np.array([0, 0, 0, 2, 1]), probabilities)
    found = subject_level(samples, names(3))
    table = with_class_names(found.table, names(3))
    row = table.iloc[0]
    assert (row["subject"], row["label"], row["images"]) == ("P", "class a", 3)
    assert row["mean_probability_class b"] == pytest.approx(0.5)
    assert [row[f"vote_share_class {letter}"] for letter in "abc"] == pytest.approx([1 / 3, 2 / 3, 0])
    assert (row["prediction_mean"], row["prediction_vote"]) == ("class b", "class b")
    assert found.mean is not None
    assert found.mean.confusion == ((0, 1, 0), (0, 0, 0), (0, 0, 1))
    assert found.num_unknown_images == 1


def test_shares_of_a_differential_count_are_compared() -> None:
    certain = np.eye(3)
    samples = EvaluatedSamples(tuple("abcd"), ("P", "P", "P", "P"), np.array([0, 0, 1, 2]), certain[[0, 1, 1, 2]])
    found = subject_level(samples, names(3))
    assert found.mixed_subjects == ("P",)
    assert (found.mean, subject_samples(samples)) == (None, None)
    assert found.share_errors == pytest.approx((0.25, 0.25, 0))
    assert found.to_dict()["share_errors"] == pytest.approx([0.25, 0.25, 0])


# --- tables ---------------------------------------------------------------------------------------------------------


def table_of(num_classes: int) -> tuple[EvaluatedSamples, Callable[[], object]]:
    samples = cells(num_classes)
    found = Predictions(np.arange(len(samples)), samples.labels_N, np.log(samples.probabilities_NK))
    return samples, lambda: predictions_table(
        found, samples.ids, samples.subjects, ["test"] * len(samples), names(num_classes)
    )


def test_a_table_of_many_classes_is_read_back(tmp_path) -> None:
    samples, make = table_of(5)
    table = make()
    write_table(tmp_path / "predictions.csv", table)
    again = evaluated_samples(read_predictions(tmp_path / "predictions.csv", names(5)), names(5))
    assert again.labels_N.tolist() == samples.labels_N.tolist()
    assert again.probabilities_NK == pytest.approx(samples.probabilities_NK, abs=1e-9)
    assert table["prediction"].tolist() == [names(5)[label] for label in samples.predictions_N()]


def test_a_submission_of_many_classes_names_them(tmp_path) -> None:
    _, make = table_of(3)
    table = make().head(2)
    write_submission(tmp_path / "answers.csv", table, None)
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert lines == ["ID,label", *(f"{row.id},{row.prediction}" for row in table.itertuples())]
