"""Metrics of thousands of resamples at once: per-subject sums and draws in, one value per metric and draw out.

A draw says how often each subject counts, and all images of a subject count as often as the subject. Whatever comes
from counts and means is then a product of the draws with per-subject sums. The two ranking metrics need the images in
the order of their scores once, and running sums of their weights. The plain definition of each is scikit-learn's with
``sample_weight``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_models.judging.judged_samples import JudgedSamples
from leukemia_models.judging.metrics import POSITIVE, brier_terms, nll_terms

Floats = npt.NDArray[np.float64]
MAX_CHUNK_VALUES = 100_000
"""Draws times images that are worked on at a time: 0.8 MB an array, which the processor's caches hold."""


def drawn_metrics(
    samples: JudgedSamples, subject_N: npt.NDArray[np.int64], draws_DS: npt.NDArray[np.int64], threshold: float
) -> dict[str, Floats]:
    """Compute the metrics of every draw.

    Parameters
    ----------
    samples : JudgedSamples
        Images.
    subject_N : int64 array (N,)
        Number of each image's subject, from 0.
    draws_DS : int64 array (D,S)
        How often each subject counts in each draw.
    threshold : float
        The prediction is class 1 where its probability lies above.

    Returns
    -------
    dict of str to float64 array (D,)
        All of :data:`~leukemia_models.judging.metrics.METRIC_NAMES` but ``ece``; NaN where a draw leaves one undefined.
    """
    num_subjects = draws_DS.shape[1]
    calls_N = (samples.probabilities_N > threshold).astype(np.int64)
    cell_N = 2 * samples.labels_N + calls_N
    confusion_SC = np.zeros((num_subjects, 4))
    np.add.at(confusion_SC, (subject_N, cell_N), 1)
    losses_SL = np.stack(
        [
            np.bincount(subject_N, terms(samples.labels_N, samples.probabilities_N), num_subjects)
            for terms in (brier_terms, nll_terms)
        ],
        axis=1,
    )
    counts_D = (draws_DS @ confusion_SC).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        brier_D, nll_D = (draws_DS @ losses_SL / counts_D[:, None]).T
        return {
            **confusion_metrics(draws_DS @ confusion_SC),
            **_ranking_metrics(samples, subject_N, draws_DS),
            "brier": brier_D,
            "nll": nll_D,
        }


def confusion_metrics(confusion_DC: Floats) -> dict[str, Floats]:
    """Compute what follows from confusion matrices.

    Parameters
    ----------
    confusion_DC : float64 array (D,4)
        Counts of (label, prediction) = (0,0), (0,1), (1,0), (1,1).
    """
    true_0, false_1, false_0, true_1 = confusion_DC.T
    label_0, label_1 = true_0 + false_1, true_1 + false_0
    called_0, called_1 = true_0 + false_0, true_1 + false_1
    total = label_0 + label_1
    specificity, sensitivity = true_0 / label_0, true_1 / label_1
    f1_0, f1_1 = 2 * true_0 / (label_0 + called_0), 2 * true_1 / (label_1 + called_1)
    spread = np.sqrt(label_0 * label_1 * called_0 * called_1)
    # Without a call of one class the correlation is 0 by convention, as in scikit-learn.
    mcc = np.where(spread > 0, (true_0 * true_1 - false_0 * false_1) / np.where(spread > 0, spread, 1), 0)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "weighted_f1": (f1_0 * label_0 + f1_1 * label_1) / total,
        "macro_f1": (f1_0 + f1_1) / 2,
        "mcc": np.where(label_0 * label_1 > 0, mcc, np.nan),
        "accuracy": (true_0 + true_1) / total,
    }


def _ranking_metrics(
    samples: JudgedSamples, subject_N: npt.NDArray[np.int64], draws_DS: npt.NDArray[np.int64]
) -> dict[str, Floats]:
    """Compute AUROC and average precision of every draw, some draws at a time."""
    falling_N = np.argsort(-samples.probabilities_N, kind="stable")
    scores_N = samples.probabilities_N[falling_N]
    last_of_tie = np.flatnonzero(np.append(scores_N[1:] != scores_N[:-1], True))
    is_positive_N = samples.labels_N[falling_N] == POSITIVE
    chunks = [
        _ranking_of_weights(draws_DS[rows][:, subject_N[falling_N]], is_positive_N, last_of_tie)
        for rows in _chunks(len(draws_DS), len(samples))
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in ("auroc", "auprc")}


def _chunks(num_draws: int, num_samples: int) -> Iterator[slice]:
    length = max(MAX_CHUNK_VALUES // num_samples, 1)
    return (slice(start, start + length) for start in range(0, num_draws, length))


def _ranking_of_weights(
    weights_DN: npt.NDArray[np.int64], is_positive_N: npt.NDArray[np.bool_], last_of_tie: npt.NDArray[np.int64]
) -> Mapping[str, Floats]:
    """Follow the ROC and precision-recall curves from the highest score down, one step for each distinct score."""
    positives_DT = np.cumsum(weights_DN * is_positive_N, axis=1)[:, last_of_tie]
    called_DT = np.cumsum(weights_DN, axis=1)[:, last_of_tie]
    gained_DT = np.diff(positives_DT, axis=1, prepend=0)
    negatives_DT = called_DT - positives_DT
    num_positives_D, num_negatives_D = positives_DT[:, -1], negatives_DT[:, -1]
    # Each positive beats the negatives below it, and half of those that tie with it.
    met_DT = (negatives_DT + np.pad(negatives_DT, ((0, 0), (1, 0)))[:, :-1]) / 2
    lost_D = (gained_DT * met_DT).sum(axis=1)
    precision_DT = positives_DT / np.maximum(called_DT, 1)
    return {
        "auroc": 1 - lost_D / (num_positives_D * num_negatives_D),
        "auprc": _where_both((gained_DT * precision_DT).sum(axis=1) / num_positives_D, num_negatives_D),
    }


def _where_both(values_D: Floats, num_negatives_D: npt.NDArray[Any]) -> Floats:
    """Leave out draws without negatives: a precision of 1 would say nothing there."""
    return np.where(num_negatives_D > 0, values_D, np.nan)
