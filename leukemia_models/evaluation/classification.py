"""All metrics of predictions together, of each class too, and those of always predicting one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.records.arguments import as_labels, as_numbers
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, require_labels
from leukemia_models.evaluation.metrics import (
    METRICS,
    POSITIVE,
    SHIPPED_METRICS,
    Labels,
    Outcome,
    Scores,
    metric_names,
)

ONE_CLASS_SHARE = 0.98


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
    return ClassMetrics(
        support=support,
        recall=hits / support if support else None,
        precision=hits / called if called else None,
        specificity=(num_others - called + hits) / num_others if num_others else None,
        f1=float(outcome.f1_K[label]) if support + called else None,
        auroc=outcome.auroc(label) if has_rest else None,
        auprc=outcome.auprc(label) if has_rest else None,
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
        Of each class against the rest; may be left out.
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
        return {name: getattr(self, name) if name in SHIPPED_METRICS else self.others.get(name) for name in names}

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
    of_each_class: bool = True,
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
    of_each_class : bool
        False leaves `per_class` empty, which sorts the samples once or twice a class.

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
    fields: dict[str, Any] = {
        name: values[name] for name in SHIPPED_METRICS if name not in ("sensitivity", "specificity")
    }
    return ClassificationMetrics(
        **fields,
        num_samples=len(labels_N),
        threshold=threshold,
        confusion=tuple(tuple(row) for row in outcome.confusion.tolist()),
        recall_per_class=tuple(outcome.recall(label) for label in labels),
        one_class_warning=one_class_warning(outcome.confusion, classes),
        per_class=tuple(class_metrics(outcome, label) for label in labels if of_each_class),
        others={name: value for name, value in values.items() if name not in SHIPPED_METRICS},
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
    names = [str(label) for label in range(num_classes)]
    scores = classification_metrics(labels_N, probabilities, names, of_each_class=False)
    return MajorityBaseline(
        prediction=prediction,
        accuracy=scores.accuracy,
        weighted_f1=scores.weighted_f1,
        auprc=float(frequency_K[POSITIVE] if num_classes == 2 else frequency_K[frequency_K > 0].mean()),
        macro_f1=scores.macro_f1,
    )
