"""Metrics of labels and probabilities. To add a metric: :func:`register_metric`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_labels, as_numbers
from leukemia_data.registry import Registry
from leukemia_models.evaluation.curves import reliability_bins, sklearn_metrics
from leukemia_models.evaluation.evaluated_samples import (
    DEFAULT_THRESHOLD,
    predicted_classes,
    require_labels,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.floating[Any]]

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

    def against_rest(self, label: int) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Return whether each sample is of a class, and the probability of that class."""
        return self.labels_N == label, self.probabilities_NK[:, label]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A registered metric, see :func:`register_metric`."""

    name: str
    title: str
    value: Callable[[Outcome], float | None]
    title_with_classes: str = ""
    title_of_many: str = ""
    of_class: int | None = None
    needs_both_classes: bool = True
    needs_probabilities: bool = False
    has_interval: bool = True
    of_confusions: Callable[[Floats], Floats] | None = None

    def of(self, outcome: Outcome, *, are_probabilities: bool = True) -> float | None:
        """Return the value, None where it is undefined."""
        if self.needs_probabilities and not are_probabilities:
            return None
        if self.of_class is not None and outcome.num_classes > 2:
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
        The only class of two whose samples matter: intervals need enough subjects of this class only. Of more classes
        the metric is undefined.
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
            needs_both_classes=needs_both_classes,
            needs_probabilities=needs_probabilities,
            has_interval=has_interval,
            of_confusions=of_confusions,
        )
    )


def metric_names(num_classes: int) -> tuple[str, ...]:
    """Return the names of the metrics that are defined for so many classes, in the order of tables."""
    return tuple(name for name in METRICS if num_classes == 2 or METRICS.get(name).of_class is None)


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


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class against all others; None where undefined.

    Parameters
    ----------
    support : int
        Number of samples of the class.
    recall, precision, specificity, f1 : float or None
        Of the predictions. Precision is None if nothing is predicted as this class, F1 if it is not met at all.
    auroc, auprc : float or None
        Of the probability of the class.
    """

    support: int
    recall: float | None
    precision: float | None
    specificity: float | None
    f1: float | None
    auroc: float | None
    auprc: float | None


def class_metrics(outcome: Outcome, label: int) -> ClassMetrics:
    """Return the metrics of one class against all others."""
    confusion = outcome.confusion
    hits, support, called = (int(value) for value in (confusion[label, label], *_margins(confusion, label)))
    num_others = int(confusion.sum()) - support
    has_rest = bool(support and num_others)
    is_class_N, scores_N = outcome.against_rest(label)
    return ClassMetrics(
        support=support,
        recall=hits / support if support else None,
        precision=hits / called if called else None,
        specificity=(num_others - called + hits) / num_others if num_others else None,
        f1=float(outcome.f1_K[label]) if support + called else None,
        auroc=float(sklearn_metrics.roc_auc_score(is_class_N, scores_N)) if has_rest else None,
        auprc=float(sklearn_metrics.average_precision_score(is_class_N, scores_N)) if has_rest else None,
    )


def _margins(confusion: npt.NDArray[np.int64], label: int) -> tuple[int, int]:
    return int(confusion[label].sum()), int(confusion[:, label].sum())


@dataclass(frozen=True, kw_only=True)
class ClassificationMetrics:
    """Metrics of predictions of K >= 2 classes, per image or per subject; None where undefined.

    Parameters
    ----------
    num_samples : int
        Number of images or subjects.
    threshold : float
        Of two classes the prediction is class 1 where its probability is above.
    confusion : tuple of tuples of int
        ``confusion[label][prediction]``, (K,K).
    accuracy : float
    recall_per_class : tuple of float or None
        Of two classes specificity (class 0) and sensitivity (class 1).
    balanced_accuracy : float or None
        Mean of the recalls of the classes with samples.
    weighted_f1 : float
        Mean of the F1 of all classes, weighted by the frequency of the labels.
    macro_f1 : float or None
        Unweighted mean of the F1 of the classes with samples or predictions.
    auroc : float or None
        Area under the ROC curve; of more than two classes the mean over the classes with samples, each against the
        rest.
    auprc : float or None
        Average precision of class 1, without interpolation; of more than two classes the mean over those with samples.
        The chance level is the frequency of the class.
    mcc : float or None
        Matthews' correlation of label and prediction, in [-1, 1]; 0 where all predictions are one class.
    brier, ece, nll : float or None
        Brier score, of more than two classes the sum over them, in [0, 2]; expected calibration error, see
        :func:`reliability_bins`; mean negative log-likelihood (natural logarithm). None for fractions of votes.
    one_class_warning : str or None
        See :func:`one_class_warning`.
    per_class : tuple of ClassMetrics
        Of each class against the rest.
    others : mapping of str to float or None
        Further registered metrics.
    """

    num_samples: int
    threshold: float
    confusion: tuple[tuple[int, ...], ...]
    accuracy: float
    recall_per_class: tuple[float | None, ...]
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
    per_class: tuple[ClassMetrics, ...] = ()
    others: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def sensitivity(self) -> float | None:
        """Recall of class 1 of two; None for more."""
        return self.recall_per_class[POSITIVE] if len(self.recall_per_class) == 2 else None

    @property
    def specificity(self) -> float | None:
        """Recall of class 0 of two; None for more."""
        return self.recall_per_class[1 - POSITIVE] if len(self.recall_per_class) == 2 else None

    def values(self) -> dict[str, float | None]:
        """Return the metrics of :func:`metric_names` by name."""
        names = metric_names(len(self.confusion))
        return {name: getattr(self, name) if name in _SHIPPED else self.others.get(name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the other metrics, flat, as JSON values; of two classes sensitivity and specificity."""
        values = {name: value for name, value in asdict(self).items() if name != "others"}
        of_two = {"sensitivity": self.sensitivity, "specificity": self.specificity} if len(self.confusion) == 2 else {}
        return {**values, **of_two, **self.others}


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
        0 to K-1.
    probabilities_NK : float array (N,K)
        Rows sum to 1.
    classes : sequence of K str
        Names of the classes, for the warning.
    threshold : float
        In [0, 1). Of two classes the prediction is class 1 where its probability is above; of more it is the most
        probable class, the first of equals.
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
    outcome = Outcome(labels_N, probabilities_NK, threshold)
    labels = range(outcome.num_classes)
    values = {name: METRICS.get(name).of(outcome, are_probabilities=are_probabilities) for name in METRICS}
    fields: dict[str, Any] = {name: values[name] for name in _SHIPPED if name not in ("sensitivity", "specificity")}
    return ClassificationMetrics(
        **fields,
        num_samples=len(labels_N),
        threshold=threshold,
        confusion=tuple(tuple(row) for row in outcome.confusion.tolist()),
        recall_per_class=tuple(outcome.recall(label) for label in labels),
        one_class_warning=one_class_warning(outcome.confusion, classes),
        per_class=tuple(class_metrics(outcome, label) for label in labels),
        others={name: value for name, value in values.items() if name not in _SHIPPED},
    )


def _check(labels_N: npt.NDArray[Any], probabilities_NK: npt.NDArray[Any]) -> None:
    if len(labels_N) == 0:
        raise UsageError("no samples to evaluate: the split is empty")
    is_table = probabilities_NK.ndim == 2 and probabilities_NK.shape[1] >= 2
    if labels_N.ndim != 1 or not is_table or len(probabilities_NK) != len(labels_N):
        raise UsageError(
            "metrics need labels (N,) and probabilities (N,K) of two classes or more, got "
            f"{labels_N.shape} and {probabilities_NK.shape}"
        )
    require_labels(labels_N, probabilities_NK.shape[1])
    in_range = bool(((probabilities_NK >= 0) & (probabilities_NK <= 1)).all())
    if not in_range or not np.allclose(probabilities_NK.sum(axis=1), 1, atol=1e-4):
        raise UsageError("probabilities must be in [0, 1] and sum to 1 in every row")


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


def one_class_warning(confusion: npt.NDArray[np.integer[Any]], classes: Sequence[str]) -> str | None:
    """Return a warning if over 98 % of predictions are one class, and not nearly all labels, else None.

    `confusion` is an int array (K,K), ``confusion[label, prediction]``. Of two classes any sample of the other one
    counts, of more 2 % of them.
    """
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    share = predicted.max() / predicted.sum()
    is_one_class = np.count_nonzero(support) < 2 or (
        len(support) > 2 and support.max() > ONE_CLASS_SHARE * support.sum()
    )
    if share <= ONE_CLASS_SHARE or is_one_class:
        return None
    held = "both" if len(support) == 2 else f"{np.count_nonzero(support)}"
    return (
        f"{share:.1%} of the predictions are {classes[int(predicted.argmax())]!r} although the labels hold {held} "
        "classes: the network has collapsed, or its BatchNorm statistics do not fit its weights"
    )


def _balanced_accuracy(outcome: Outcome) -> float:
    known = outcome.known_classes
    return float(np.mean(outcome.confusion.diagonal()[known] / outcome.support_K[known]))


def _of_classes(score: Callable[..., float], outcome: Outcome) -> float:
    """Return a ranking score of class 1 of two, else its mean over the classes with samples, each against the rest."""
    labels = [POSITIVE] if outcome.num_classes == 2 else outcome.known_classes.tolist()
    return float(np.mean([score(*outcome.against_rest(label)) for label in labels]))


def _register_metrics() -> None:
    """Register the fields of :class:`ClassificationMetrics`, which ``bootstrap`` computes together."""
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
        lambda o: _of_classes(sklearn_metrics.roc_auc_score, o),
        title_of_many="AUROC (mean of classes, one against the rest)",
    )
    add(
        "auprc",
        "AUPRC",
        lambda o: _of_classes(sklearn_metrics.average_precision_score, o),
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
_SHIPPED = METRICS.names()


@dataclass(frozen=True, kw_only=True)
class MajorityBaseline:
    """Metrics of always predicting the most frequent class; balanced accuracy and AUROC are those of chance.

    Parameters
    ----------
    prediction : int
        The most frequent class.
    accuracy, weighted_f1 : float
    auprc : float
        The frequency of class 1; of more than two classes the mean frequency of those with samples.
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


def majority_baseline(labels_N: Labels, num_classes: int = 2) -> MajorityBaseline:
    """Return the metrics of always predicting the most frequent class of `labels_N`, of equals the last."""
    labels_N = as_labels(labels_N, "labels_N")
    if len(labels_N) == 0:
        raise UsageError("no samples to evaluate: the split is empty")
    require_labels(labels_N, num_classes)
    frequency_K = np.bincount(labels_N, minlength=num_classes) / len(labels_N)
    prediction = num_classes - 1 - int(frequency_K[::-1].argmax())
    probabilities = np.zeros((len(labels_N), num_classes))
    probabilities[:, prediction] = 1
    scores = classification_metrics(labels_N, probabilities, [str(label) for label in range(num_classes)])
    return MajorityBaseline(
        prediction=prediction,
        accuracy=scores.accuracy,
        weighted_f1=scores.weighted_f1,
        auprc=float(frequency_K[POSITIVE] if num_classes == 2 else frequency_K[frequency_K > 0].mean()),
        macro_f1=scores.macro_f1,
    )
