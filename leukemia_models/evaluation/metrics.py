"""The metrics of labels and probabilities. To add a metric: :func:`register_metric`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.registry import Registry
from leukemia_models.evaluation.curves import reliability_bins, sklearn_metrics
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, predicted_classes

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.floating[Any]]

POSITIVE = 1
LOWEST_PROBABILITY = 1e-9
"""The NLL clips probabilities to this distance from 0 and 1, the precision of tables; it is at most 20.7."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The argument of a metric: labels and predictions of samples.

    Parameters
    ----------
    labels_N : int64 array (N,)
        0 to K-1.
    probabilities_NK : float64 array (N,K)
        Or fractions of votes, see `needs_probabilities` of :func:`register_metric`.
    threshold : float
        Of two classes the prediction is class 1 where its probability is above.
    """

    labels_N: npt.NDArray[np.int64]
    probabilities_NK: Floats
    threshold: float = DEFAULT_THRESHOLD

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return int(self.probabilities_NK.shape[1])

    @property
    def probabilities_N(self) -> Floats:
        """Probabilities of class 1 of two, (N,)."""
        _, probabilities_N = self.probabilities_NK.T
        return np.asarray(probabilities_N)

    @cached_property
    def predictions_N(self) -> npt.NDArray[np.int64]:
        """Predicted classes, 0 to K-1."""
        return predicted_classes(self.probabilities_NK, self.threshold)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (K,K), ``confusion[label, prediction]``."""
        num = self.num_classes
        return np.bincount(num * self.labels_N + self.predictions_N, minlength=num * num).reshape(num, num)

    @cached_property
    def support_K(self) -> npt.NDArray[np.int64]:
        """Number of samples of each class, (K,)."""
        return np.asarray(self.confusion.sum(axis=1))

    @cached_property
    def f1_K(self) -> Floats:
        """F1 of each class, (K,); 0 for a class without samples or predictions."""
        sizes_K = self.support_K + self.confusion.sum(axis=0)
        return np.asarray(2 * self.confusion.diagonal() / np.maximum(sizes_K, 1))

    @property
    def met_classes(self) -> npt.NDArray[np.int64]:
        """Classes with samples or predictions."""
        return np.flatnonzero(self.support_K + self.confusion.sum(axis=0))

    @property
    def known_classes(self) -> npt.NDArray[np.int64]:
        """Classes with samples."""
        return np.flatnonzero(self.support_K)

    def recall(self, label: int) -> float | None:
        """Return the recall of a class, None without samples of it."""
        return float(self.confusion[label, label] / self.support_K[label]) if self.support_K[label] else None

    def auroc(self, label: int) -> float:
        """Return the area under the ROC curve of a class against the rest; both must have samples."""
        return self._ranking("roc_auc_score", label)

    def auprc(self, label: int) -> float:
        """Return the average precision of a class against the rest; both must have samples."""
        return self._ranking("average_precision_score", label)

    def _ranking(self, score: str, label: int) -> float:
        if (score, label) not in self._rankings:
            is_class_N, scores_N = self.labels_N == label, self.probabilities_NK[:, label]
            self._rankings[score, label] = float(getattr(sklearn_metrics, score)(is_class_N, scores_N))
        return self._rankings[score, label]

    @cached_property
    def _rankings(self) -> dict[tuple[str, int], float]:
        # Means over the classes and the table of each class need the same ones.
        return {}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A registered metric, see :func:`register_metric`."""

    name: str
    title: str
    value: Callable[[Outcome], float | None]
    title_with_classes: str = ""
    title_of_many: str = ""
    of_class: int | None = None
    only_two_classes: bool = False
    needs_both_classes: bool = True
    needs_probabilities: bool = False
    has_interval: bool = True
    of_confusions: Callable[[Floats], Floats] | None = None

    def is_for(self, num_classes: int) -> bool:
        """Whether it is defined for so many classes."""
        return num_classes == 2 or not (self.only_two_classes or self.of_class is not None)

    def of(self, outcome: Outcome, *, are_probabilities: bool = True) -> float | None:
        """Return the value, None where it is undefined."""
        if self.needs_probabilities and not are_probabilities:
            return None
        if not self.is_for(outcome.num_classes):
            return None
        if self.needs_both_classes and len(outcome.known_classes) < 2:
            return None
        value = self.value(outcome)
        return None if value is None or not np.isfinite(value) else float(value)


METRICS: Registry[Metric] = Registry("metric")
"""All metrics, in the order of tables."""


def register_metric(
    name: str,
    title: str,
    value: Callable[[Outcome], float | None],
    *,
    title_with_classes: str = "",
    title_of_many: str = "",
    of_class: int | None = None,
    only_two_classes: bool = False,
    needs_both_classes: bool = True,
    needs_probabilities: bool = False,
    has_interval: bool = True,
    of_confusions: Callable[[Floats], Floats] | None = None,
) -> Metric:
    """Register a metric for all evaluations, tables and comparisons.

    Parameters
    ----------
    name : str
        Key in ``results.json`` and in tables.
    title : str
        Name in texts.
    value : callable
        ``value(outcome)`` returns the metric of an :class:`Outcome`, None where it is undefined.
    title_with_classes : str
        Name in texts with two classes, with ``{negative}`` and ``{positive}``.
    title_of_many : str
        Name in texts with more than two classes.
    of_class : int, optional
        The only class of two whose samples matter: intervals need enough subjects of this class only.
    only_two_classes : bool
        Whether evaluations of more classes leave it out; those with `of_class` are left out too.
    needs_both_classes : bool
        Whether it is undefined where the labels hold one class.
    needs_probabilities : bool
        Whether it is undefined for fractions of votes, which are not probabilities.
    has_interval : bool
        False for a metric that resampling itself changes, such as a calibration error.
    of_confusions : callable, optional
        For a metric of the confusion matrix: from counts (D,K*K), of two classes (label, prediction) = (0,0), (0,1),
        (1,0), (1,1), to the metric of each draw, (D,). It makes intervals fast; else `value` is called for every draw.

    Raises
    ------
    UsageError
        If the name is taken.
    """
    return METRICS.register(
        Metric(
            name=name,
            title=title,
            value=value,
            title_with_classes=title_with_classes,
            title_of_many=title_of_many,
            of_class=of_class,
            only_two_classes=only_two_classes,
            needs_both_classes=needs_both_classes,
            needs_probabilities=needs_probabilities,
            has_interval=has_interval,
            of_confusions=of_confusions,
        )
    )


def metric_names(num_classes: int) -> tuple[str, ...]:
    """Return the names of the metrics that are defined for so many classes, in the order of tables."""
    return tuple(name for name in METRICS if METRICS.get(name).is_for(num_classes))


MAIN_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "auroc")
"""Metrics in short texts and figures; tables have all."""


def main_metric_names(num_classes: int) -> tuple[str, ...]:
    """Return those of :data:`MAIN_METRICS` that are defined for so many classes."""
    known = metric_names(num_classes)
    return tuple(name for name in MAIN_METRICS if name in known)


def metric_title(name: str, classes: Sequence[str], quoted: Callable[[str], str] = str) -> str:
    """Return the title of a metric for these classes, of two the negative and the positive one.

    Names of classes go through `quoted`.
    """
    metric = METRICS.get(name)
    if len(classes) != 2:
        return metric.title_of_many or metric.title
    negative, positive = map(quoted, classes)
    return metric.title_with_classes.format(negative=negative, positive=positive) or metric.title


def brier_terms(labels_N: Labels, probabilities_NK: Scores) -> Floats:
    """Return the Brier score of each sample, (N,).

    Of two classes it is the squared error of the probability of class 1, in [0, 1]; of more the sum of those of all
    classes, in [0, 2] (Brier, 1950), as in scikit-learn.
    """
    if probabilities_NK.shape[1] == 2:
        return np.asarray(np.square(probabilities_NK[:, POSITIVE] - labels_N, dtype=np.float64))
    is_class_NK = labels_N[:, None] == np.arange(probabilities_NK.shape[1])
    return np.asarray(np.square(probabilities_NK - is_class_NK, dtype=np.float64).sum(axis=1))


def nll_terms(labels_N: Labels, probabilities_NK: Scores) -> Floats:
    """Return the negative log-likelihood of each sample, (N,), at most 20.7 (:data:`LOWEST_PROBABILITY`)."""
    of_label_N = probabilities_NK[np.arange(len(labels_N)), labels_N]
    if probabilities_NK.shape[1] == 2:
        of_label_N = np.where(labels_N == POSITIVE, probabilities_NK[:, 1], 1 - probabilities_NK[:, 1])
    return np.asarray(-np.log(np.clip(of_label_N, LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY)))


def _balanced_accuracy(outcome: Outcome) -> float:
    known = outcome.known_classes
    return float(np.mean(outcome.confusion.diagonal()[known] / outcome.support_K[known]))


def _of_classes(score: Callable[[int], float], outcome: Outcome) -> float:
    """Return a ranking score of class 1 of two, else its mean over the classes with samples, each against the rest."""
    labels = [POSITIVE] if outcome.num_classes == 2 else outcome.known_classes.tolist()
    return float(np.mean([score(label) for label in labels]))


def _register_metrics() -> None:
    """Register the shipped metrics, which ``bootstrap`` computes together."""
    add: Callable[..., Metric] = register_metric
    of_negative = {"title_with_classes": "specificity (recall of {negative})", "of_class": 0}
    of_positive = {"title_with_classes": "sensitivity (recall of {positive})", "of_class": 1}
    any_class, probabilities = {"needs_both_classes": False}, {"needs_both_classes": False, "needs_probabilities": True}
    add("balanced_accuracy", "balanced accuracy", _balanced_accuracy)
    add("sensitivity", "sensitivity", lambda o: o.recall(1), **of_positive, **any_class)
    add("specificity", "specificity", lambda o: o.recall(0), **of_negative, **any_class)
    add("weighted_f1", "weighted F1", lambda o: float(o.f1_K @ o.support_K / o.support_K.sum()), **any_class)
    add("macro_f1", "macro F1", lambda o: float(o.f1_K[o.met_classes].mean()))
    add(
        "auroc",
        "AUROC",
        lambda o: _of_classes(o.auroc, o),
        title_of_many="AUROC (mean of classes, one against the rest)",
    )
    add(
        "auprc",
        "AUPRC",
        lambda o: _of_classes(o.auprc, o),
        title_with_classes="AUPRC (of {positive})",
        title_of_many="AUPRC (mean of classes, one against the rest)",
    )
    add("mcc", "MCC", lambda o: float(sklearn_metrics.matthews_corrcoef(o.labels_N, o.predictions_N)))
    add("accuracy", "accuracy", lambda o: float(np.trace(o.confusion) / o.support_K.sum()), **any_class)
    add("brier", "Brier score", lambda o: float(np.mean(brier_terms(o.labels_N, o.probabilities_NK))), **probabilities)
    add(
        "ece",
        "ECE",
        lambda o: reliability_bins(o.labels_N, o.probabilities_NK).calibration_error,
        title_of_many="ECE (of the most probable class)",
        has_interval=False,
        **probabilities,
    )
    add("nll", "NLL", lambda o: float(np.mean(nll_terms(o.labels_N, o.probabilities_NK))), **probabilities)


_register_metrics()
SHIPPED_METRICS = METRICS.names()
"""Those that are fields of :class:`~leukemia_models.evaluation.classification.ClassificationMetrics`."""
