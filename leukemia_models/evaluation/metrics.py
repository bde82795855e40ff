"""Metrics of labels and probabilities. To add a metric: :func:`register_metric`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.lazy_imports import Library
from leukemia_data.records.arguments import as_labels, as_numbers
from leukemia_data.registry import Registry
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, labels_and_probabilities

if TYPE_CHECKING:
    import sklearn.metrics

    sklearn_metrics = sklearn.metrics
else:
    # It takes as long to import as torch: not before the first evaluation.
    sklearn_metrics = Library("sklearn.metrics")

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.floating[Any]]
NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Equal-width bins of the probability of class 1.

    Parameters
    ----------
    counts_M : float array (M,)
        Number of samples in each bin.
    probability_sums_M : float array (M,)
        Sum of their probabilities.
    positives_M : float array (M,)
        Number of samples of class 1.
    """

    counts_M: Floats
    probability_sums_M: Floats
    positives_M: Floats

    @property
    def edges(self) -> Floats:
        """Edges of the bins, (M + 1,), from 0 to 1."""
        return np.linspace(0, 1, len(self.counts_M) + 1)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in [0, 1]: mean distance of probability and frequency, weighted by samples."""
        return float(np.abs(self.probability_sums_M - self.positives_M).sum() / self.counts_M.sum())


def reliability_bins(labels_N: Labels, probabilities_N: Scores, num_bins: int = NUM_BINS) -> ReliabilityBins:
    """Return bins of samples by their probability of class 1; a bin includes its lower edge, the last one both.

    Labels are 0 or 1, probabilities those of class 1.
    """
    labels_N, probabilities_N = labels_and_probabilities(labels_N, probabilities_N)
    bin_N = np.minimum((probabilities_N * num_bins).astype(np.int64), num_bins - 1)
    return ReliabilityBins(
        np.bincount(bin_N, minlength=num_bins).astype(np.float64),
        np.bincount(bin_N, probabilities_N, num_bins).astype(np.float64),
        np.bincount(bin_N, labels_N, num_bins).astype(np.float64),
    )


ONE_CLASS_SHARE = 0.98
POSITIVE = 1
LOWEST_PROBABILITY = 1e-9
"""The NLL clips probabilities to this distance from 0 and 1, the precision of tables; it is at most 20.7."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The argument of a metric: labels and predictions of samples.

    Parameters
    ----------
    labels_N : int64 array (N,)
        0 or 1.
    probabilities_N : float64 array (N,)
        Of class 1; or fractions of votes, see `needs_probabilities` of :func:`register_metric`.
    threshold : float
        The prediction is class 1 where the probability is above.
    """

    labels_N: npt.NDArray[np.int64]
    probabilities_N: Floats
    threshold: float = DEFAULT_THRESHOLD

    @cached_property
    def predictions_N(self) -> npt.NDArray[np.int64]:
        """Predicted classes, 0 or 1."""
        return (self.probabilities_N > self.threshold).astype(np.int64)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (2,2), ``confusion[label, prediction]``."""
        return np.bincount(2 * self.labels_N + self.predictions_N, minlength=4).reshape(2, 2)

    @cached_property
    def support_K(self) -> npt.NDArray[np.int64]:
        """Number of samples of each class, (2,)."""
        return np.asarray(self.confusion.sum(axis=1))

    @cached_property
    def f1_K(self) -> Floats:
        """F1 of each class, (2,); 0 for a class without samples or predictions."""
        sizes_K = self.support_K + self.confusion.sum(axis=0)
        return np.asarray(2 * self.confusion.diagonal() / np.maximum(sizes_K, 1))

    def recall(self, label: int) -> float | None:
        """Return the recall of a class, None without samples of it."""
        return float(self.confusion[label, label] / self.support_K[label]) if self.support_K[label] else None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A registered metric, see :func:`register_metric`."""

    name: str
    title: str
    value: Callable[[Outcome], float | None]
    title_with_classes: str = ""
    of_class: int | None = None
    needs_both_classes: bool = True
    needs_probabilities: bool = False
    has_interval: bool = True
    of_confusions: Callable[[Floats], Floats] | None = None

    def of(self, outcome: Outcome, *, are_probabilities: bool = True) -> float | None:
        """Return the value, None where it is undefined."""
        if self.needs_probabilities and not are_probabilities:
            return None
        if self.needs_both_classes and not outcome.support_K.all():
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
    of_class: int | None = None,
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
        Name in texts with classes, with ``{negative}`` and ``{positive}``.
    of_class : int, optional
        The only class whose samples matter: intervals need enough subjects of this class only.
    needs_both_classes : bool
        Whether it is undefined where the labels hold one class.
    needs_probabilities : bool
        Whether it is undefined for fractions of votes, which are not probabilities.
    has_interval : bool
        False for a metric that resampling itself changes, such as a calibration error.
    of_confusions : callable, optional
        For a metric of the confusion matrix: from counts (D,4) of (label, prediction) = (0,0), (0,1), (1,0), (1,1) to
        the metric of each draw, (D,). It makes intervals fast; else `value` is called for every draw.

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
            of_class=of_class,
            needs_both_classes=needs_both_classes,
            needs_probabilities=needs_probabilities,
            has_interval=has_interval,
            of_confusions=of_confusions,
        )
    )


def metric_title(name: str, classes: Sequence[str], quoted: Callable[[str], str] = str) -> str:
    """Return the title of a metric for the negative and the positive class, whose names go through `quoted`."""
    metric = METRICS.get(name)
    negative, positive = map(quoted, classes)
    return metric.title_with_classes.format(negative=negative, positive=positive) or metric.title


@dataclass(frozen=True, kw_only=True)
class ClassificationMetrics:
    """Metrics of two-class predictions, per image or per subject; None where undefined.

    Parameters
    ----------
    num_samples : int
        Number of images or subjects.
    threshold : float
        The prediction is class 1 where its probability is above.
    confusion : tuple of tuples of int
        ``confusion[label][prediction]``.
    accuracy : float
    recall_per_class : tuple of float or None
        Specificity (class 0) and sensitivity (class 1).
    balanced_accuracy : float or None
        Mean of the recalls.
    weighted_f1 : float
        Mean of the F1 of both classes, weighted by the frequency of the labels.
    macro_f1 : float or None
        Unweighted mean of the F1 of both classes.
    auroc : float or None
        Area under the ROC curve.
    auprc : float or None
        Average precision of class 1, without interpolation. Its chance level is the frequency of class 1.
    mcc : float or None
        Matthews' correlation of label and prediction, in [-1, 1]; 0 where all predictions are one class.
    brier, ece, nll : float or None
        Brier score; expected calibration error, see :class:`ReliabilityBins`; mean negative log-likelihood (natural
        logarithm). None for fractions of votes.
    one_class_warning : str or None
        See :func:`one_class_warning`.
    others : mapping of str to float or None
        Further registered metrics.
    """

    num_samples: int
    threshold: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    accuracy: float
    recall_per_class: tuple[float | None, float | None]
    balanced_accuracy: float | None
    weighted_f1: float
    macro_f1: float | None
    auroc: float | None
    auprc: float | None
    mcc: float | None
    brier: float | None
    ece: float | None
    nll: float | None
    one_class_warning: str | None
    others: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def sensitivity(self) -> float | None:
        """Recall of class 1."""
        return self.recall_per_class[POSITIVE]

    @property
    def specificity(self) -> float | None:
        """Recall of class 0."""
        return self.recall_per_class[1 - POSITIVE]

    def values(self) -> dict[str, float | None]:
        """Return all of :data:`METRICS` by name."""
        return {name: getattr(self, name) if name in _SHIPPED else self.others.get(name) for name in METRICS}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, sensitivity, specificity and the other metrics, flat, as JSON values."""
        values = {"sensitivity": self.sensitivity, "specificity": self.specificity, **self.others}
        return {**{name: value for name, value in asdict(self).items() if name != "others"}, **values}


def classification_metrics(
    labels_N: Labels,
    probabilities_NK: Scores,
    classes: Sequence[str] = ("hem", "all"),
    *,
    threshold: float = DEFAULT_THRESHOLD,
    are_probabilities: bool = True,
) -> ClassificationMetrics:
    """Return the metrics of probabilities against labels.

    Parameters
    ----------
    labels_N : int array (N,)
        0 or 1.
    probabilities_NK : float array (N,2)
        Rows sum to 1.
    classes : sequence of two str
        Names of class 0 and 1, for the warning.
    threshold : float
        In [0, 1). The prediction is class 1 where its probability is above.
    are_probabilities : bool
        False for fractions of votes.

    Raises
    ------
    UsageError
        If there are no samples, or an argument is not as described.
    """
    labels_N, probabilities_NK = as_labels(labels_N, "labels_N"), as_numbers(probabilities_NK, "probabilities_NK")
    _check(labels_N, probabilities_NK)
    if not 0 <= threshold < 1:
        raise UsageError(f"threshold must be in [0, 1), got {threshold}")
    outcome = Outcome(labels_N, probabilities_NK[:, POSITIVE], threshold)
    (true_0, false_1), (false_0, true_1) = outcome.confusion.tolist()
    values = {name: METRICS.get(name).of(outcome, are_probabilities=are_probabilities) for name in METRICS}
    fields: dict[str, Any] = {name: values[name] for name in _SHIPPED if name not in ("sensitivity", "specificity")}
    return ClassificationMetrics(
        **fields,
        num_samples=len(labels_N),
        threshold=threshold,
        confusion=((true_0, false_1), (false_0, true_1)),
        recall_per_class=(outcome.recall(0), outcome.recall(1)),
        one_class_warning=one_class_warning(outcome.confusion, classes),
        others={name: value for name, value in values.items() if name not in _SHIPPED},
    )


def _check(labels_N: npt.NDArray[Any], probabilities_NK: npt.NDArray[Any]) -> None:
    if len(labels_N) == 0:
        raise UsageError("no samples to evaluate: the split is empty")
    if labels_N.ndim != 1 or probabilities_NK.shape != (len(labels_N), 2):
        raise UsageError(
            f"metrics need labels (N,) and probabilities (N,2), got {labels_N.shape} and {probabilities_NK.shape}"
        )
    if not np.isin(labels_N, (0, 1)).all():
        raise UsageError(f"labels must be 0 or 1, got {sorted(set(labels_N.tolist()))[:5]}")
    in_range = bool(((probabilities_NK >= 0) & (probabilities_NK <= 1)).all())
    if not in_range or not np.allclose(probabilities_NK.sum(axis=1), 1, atol=1e-4):
        raise UsageError("probabilities must be in [0, 1] and sum to 1 in every row")


def brier_terms(labels_N: Labels, probabilities_N: Scores) -> Floats:
    """Return the Brier score of each sample, (N,), in [0, 1]."""
    return np.asarray(np.square(probabilities_N - labels_N, dtype=np.float64))


def nll_terms(labels_N: Labels, probabilities_N: Scores) -> Floats:
    """Return the negative log-likelihood of each sample, (N,), at most 20.7 (:data:`LOWEST_PROBABILITY`)."""
    of_label_N = np.where(labels_N == POSITIVE, probabilities_N, 1 - probabilities_N)
    return np.asarray(-np.log(np.clip(of_label_N, LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY)))


def one_class_warning(confusion: npt.NDArray[np.integer[Any]], classes: Sequence[str]) -> str | None:
    """Return a warning if over 98 % of predictions are one class while the labels hold both, else None.

    `confusion` is an int array (2,2), ``confusion[label, prediction]``.
    """
    predicted = confusion.sum(axis=0)
    share = predicted.max() / predicted.sum()
    if share <= ONE_CLASS_SHARE or not confusion.sum(axis=1).all():
        return None
    return (
        f"{share:.1%} of the predictions are {classes[int(predicted.argmax())]!r} although the labels hold both "
        "classes: the network has collapsed, or its BatchNorm statistics do not fit its weights"
    )


def _register_metrics() -> None:
    """Register the fields of :class:`ClassificationMetrics`, which ``bootstrap`` computes together."""
    add: Callable[..., Metric] = register_metric
    of_negative = {"title_with_classes": "specificity (recall of {negative})", "of_class": 0}
    of_positive = {"title_with_classes": "sensitivity (recall of {positive})", "of_class": 1}
    any_class, probabilities = {"needs_both_classes": False}, {"needs_both_classes": False, "needs_probabilities": True}
    add("balanced_accuracy", "balanced accuracy", lambda o: float(np.mean(np.diag(o.confusion) / o.support_K)))
    add("sensitivity", "sensitivity", lambda o: o.recall(1), **of_positive, **any_class)
    add("specificity", "specificity", lambda o: o.recall(0), **of_negative, **any_class)
    add("weighted_f1", "weighted F1", lambda o: float(o.f1_K @ o.support_K / o.support_K.sum()), **any_class)
    add("macro_f1", "macro F1", lambda o: float(o.f1_K.mean()))
    add("auroc", "AUROC", lambda o: float(sklearn_metrics.roc_auc_score(o.labels_N, o.probabilities_N)))
    add(
        "auprc",
        "AUPRC",
        lambda o: float(sklearn_metrics.average_precision_score(o.labels_N, o.probabilities_N)),
        title_with_classes="AUPRC (of {positive})",
    )
    add("mcc", "MCC", lambda o: float(sklearn_metrics.matthews_corrcoef(o.labels_N, o.predictions_N)))
    add("accuracy", "accuracy", lambda o: float(np.trace(o.confusion) / o.support_K.sum()), **any_class)
    add("brier", "Brier score", lambda o: float(np.mean(brier_terms(o.labels_N, o.probabilities_N))), **probabilities)
    add(
        "ece",
        "ECE",
        lambda o: reliability_bins(o.labels_N, o.probabilities_N).calibration_error,
        has_interval=False,
        **probabilities,
    )
    add("nll", "NLL", lambda o: float(np.mean(nll_terms(o.labels_N, o.probabilities_N))), **probabilities)


_register_metrics()
_SHIPPED = METRICS.names()


@dataclass(frozen=True, kw_only=True)
class MajorityBaseline:
    """Metrics of always predicting the more frequent class; balanced accuracy and AUROC are 0.5.

    Parameters
    ----------
    prediction : int
        The more frequent class.
    accuracy, weighted_f1 : float
    auprc : float
        The frequency of class 1.
    macro_f1 : float or None
        None where the labels hold one class only.
    """

    prediction: int
    accuracy: float
    weighted_f1: float
    auprc: float
    macro_f1: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def majority_baseline(labels_N: Labels) -> MajorityBaseline:
    """Return the metrics of always predicting the more frequent class of `labels_N`, class 1 if equal."""
    labels_N = as_labels(labels_N, "labels_N")
    if len(labels_N) == 0:
        raise UsageError("no samples to evaluate: the split is empty")
    frequency = float(np.mean(labels_N == POSITIVE))
    prediction = int(frequency >= 0.5)
    probabilities = np.zeros((len(labels_N), 2))
    probabilities[:, prediction] = 1
    scores = classification_metrics(labels_N, probabilities)
    return MajorityBaseline(
        prediction=prediction,
        accuracy=scores.accuracy,
        weighted_f1=scores.weighted_f1,
        auprc=frequency,
        macro_f1=scores.macro_f1,
    )
