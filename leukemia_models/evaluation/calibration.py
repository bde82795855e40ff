"""Calibration: temperature and decision threshold, fitted on validation images. No torch.

Temperature scaling divides the log-odds, of more than two classes the logarithms of the probabilities, by one number,
which keeps the predicted classes (Guo et al. 2017, On Calibration of Modern Neural Networks). Of two classes a
threshold is then chosen on the scaled probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leukemia_data.errors import UsageError
from leukemia_data.lazy_imports import Library
from leukemia_data.records.arguments import as_labels
from leukemia_models.evaluation.evaluated_samples import (
    DEFAULT_THRESHOLD,
    EvaluatedSamples,
    class_probabilities,
    labels_and_probabilities,
    require_labels,
    subject_counts_text,
    subjects_per_class,
)
from leukemia_models.evaluation.metrics import LOWEST_PROBABILITY, POSITIVE
from leukemia_models.evaluation.resampling import ENOUGH_SUBJECTS, MIN_SUBJECTS

if TYPE_CHECKING:
    from scipy import optimize, special
else:
    optimize, special = Library("scipy.optimize"), Library("scipy.special")

TEMPERATURE_RANGE = (0.05, 20.0)
"""Beyond it, validation images do not determine the temperature: they are separated perfectly (below), or no better
than by chance (above)."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature and a decision threshold.

    Parameters
    ----------
    temperature : float
        Divisor of the log-odds, > 0; above 1 for an overconfident network.
    threshold : float
        Of the scaled probability of class 1 of two, in [0, 1); 0.5 for more classes, where it is not used.
    fitted_on : str
        Part of the split, such as ``valid``.
    num_images : int
        Number of its labelled images.
    note : str or None
        Why the two may not generalise to other people.
    is_usable : bool
        Whether results are reported with them.

    Raises
    ------
    UsageError
        If temperature or threshold is out of range.
    """

    temperature: float
    threshold: float
    fitted_on: str
    num_images: int
    note: str | None = None
    is_usable: bool = True

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)) or not 0 <= self.threshold < 1:
            raise UsageError(f"a temperature above 0 and a threshold in [0, 1) are needed, got {self}")

    def apply(self, samples: EvaluatedSamples) -> EvaluatedSamples:
        """Return the samples with scaled probabilities."""
        return samples.with_probabilities(scaled_probabilities(samples.probabilities_NK, self.temperature))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what :meth:`to_dict` wrote; in version 0.1 only the note says whether it is usable."""
        note = values.get("note") or ""
        return cls(**{"is_usable": not any(words in note for words in _NOT_USABLE), **values})


_NOT_USABLE = ("Do not use them", "do not rely on it")


def fit_calibration(
    samples: EvaluatedSamples, *, fitted_on: str, classes: Sequence[str] = ("hem", "all")
) -> Calibration:
    """Fit temperature and threshold.

    Parameters
    ----------
    samples : EvaluatedSamples
        Validation images, predicted with the test-time augmentation that will be used.
    fitted_on : str
        Part of the split, for messages.
    classes : sequence of str
        Names of the classes, for the note.

    Raises
    ------
    UsageError
        If the labels hold one class only.
    """
    num_classes = samples.num_classes
    if len(np.unique(samples.labels_N)) < 2:
        needed = "both" if num_classes == 2 else "several"
        raise UsageError(f"temperature and threshold need {fitted_on} images of {needed} classes")
    temperature = fit_temperature(samples.labels_N, samples.probabilities_NK)
    scaled = samples.with_probabilities(scaled_probabilities(samples.probabilities_NK, temperature))
    counts = subjects_per_class(samples.labels_N, samples.subjects, num_classes)
    is_inside = TEMPERATURE_RANGE[0] * 1.01 < temperature < TEMPERATURE_RANGE[1] / 1.01
    return Calibration(
        temperature=temperature,
        threshold=fit_threshold(samples.labels_N, scaled.probabilities_N) if num_classes == 2 else DEFAULT_THRESHOLD,
        fitted_on=fitted_on,
        num_images=len(samples),
        note=_note(counts, classes, is_inside=is_inside),
        is_usable=is_inside and (counts is None or min(counts) >= MIN_SUBJECTS),
    )


def scaled_probabilities(probabilities: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Return probabilities with their log-odds divided by `temperature`, in the same shape.

    They are those of class 1 of two, (N,), or of all classes, (N,K).
    """
    if probabilities.ndim == 1:
        return np.asarray(special.expit(_log_odds(probabilities) / temperature))
    if probabilities.shape[1] == 2:
        return class_probabilities(scaled_probabilities(probabilities[:, POSITIVE], temperature))
    return np.asarray(special.softmax(_logarithms(probabilities) / temperature, axis=1))


def fit_temperature(labels_N: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> float:
    """Return the temperature with the lowest negative log-likelihood, within :data:`TEMPERATURE_RANGE`.

    Probabilities are those of class 1 of two, (N,), or of all classes, (N,K).
    """
    probabilities_NK = class_probabilities(probabilities)
    labels_N = as_labels(labels_N, "labels_N")
    if labels_N.ndim != 1 or len(labels_N) != len(probabilities_NK):
        raise UsageError(f"one label for each row of probabilities is needed, got {labels_N.shape}")
    require_labels(labels_N, probabilities_NK.shape[1])
    loss_of = _two_class_loss if probabilities_NK.shape[1] == 2 else _many_class_loss
    loss = loss_of(labels_N, probabilities_NK)
    lowest, highest = TEMPERATURE_RANGE
    # Unlike the NLL, which clips scaled probabilities, these losses are convex in the inverse temperature.
    found = optimize.minimize_scalar(loss, bounds=(1 / highest, 1 / lowest), method="bounded", options={"xatol": 1e-7})
    return float(1 / found.x)


Loss = Callable[[float], float]


def _two_class_loss(labels_N: npt.NDArray[np.int64], probabilities_NK: npt.NDArray[np.float64]) -> Loss:
    wrong_log_odds_N = np.where(labels_N == POSITIVE, -1, 1) * _log_odds(probabilities_NK[:, POSITIVE])
    return lambda inverse: float(np.mean(np.logaddexp(0, wrong_log_odds_N * inverse)))


def _many_class_loss(labels_N: npt.NDArray[np.int64], probabilities_NK: npt.NDArray[np.float64]) -> Loss:
    logarithms_NK = _logarithms(probabilities_NK)
    of_label_N = logarithms_NK[np.arange(len(labels_N)), labels_N]
    return lambda inverse: float(np.mean(special.logsumexp(logarithms_NK * inverse, axis=1) - of_label_N * inverse))


def _logarithms(probabilities_NK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.log(np.clip(probabilities_NK, LOWEST_PROBABILITY, 1)))


def fit_threshold(labels_N: npt.NDArray[np.int64], probabilities_N: npt.NDArray[np.float64]) -> float:
    """Return the threshold with the highest balanced accuracy, the nearest to 0.5 among equals.

    It is 0.5 or the middle of a gap between neighbouring probabilities. Labels are 0 and 1, both present; probabilities
    are those of class 1.
    """
    labels_N, probabilities_N = labels_and_probabilities(labels_N, probabilities_N)
    values, value_N = np.unique(probabilities_N, return_inverse=True)
    per_value = np.stack([np.bincount(value_N[labels_N == k], minlength=len(values)) for k in (0, 1)])
    # Gap k is between value k - 1 and value k; samples below a threshold in it are predicted as class 0.
    below = np.pad(per_value.cumsum(axis=1), ((0, 0), (1, 0)))
    recalls = np.stack([below[0], below[1, -1] - below[1]]) / below[:, -1:]
    recall_sum = recalls.sum(axis=0)
    starts, ends = np.append(0.0, values), np.append(values, 1.0)
    is_best = np.isclose(recall_sum, recall_sum[ends > starts].max(), rtol=0, atol=1e-12) & (ends > starts)
    if (is_best & (starts <= DEFAULT_THRESHOLD) & (ends > DEFAULT_THRESHOLD)).any():
        return DEFAULT_THRESHOLD
    middles = (starts + ends)[is_best] / 2
    return float(middles[np.abs(middles - DEFAULT_THRESHOLD).argmin()])


def _log_odds(probabilities_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(special.logit(np.clip(probabilities_N, LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY)))


def _note(counts: tuple[int, ...] | None, classes: Sequence[str], *, is_inside: bool) -> str | None:
    """Return why temperature and threshold may not generalise, by the number of subjects per class."""
    sentences = []
    if counts is None:
        sentences.append("Temperature and threshold were fitted on unknown subjects, perhaps few.")
    elif min(counts) < ENOUGH_SUBJECTS:
        listed = subject_counts_text(counts, classes)
        advice = _NOT_USABLE[0] if min(counts) < MIN_SUBJECTS else "They may not generalise"
        sentences.append(f"Temperature and threshold were fitted on few subjects, {listed}. {advice}.")
    if not is_inside:
        sentences.append(f"The temperature is at the limit of its range {TEMPERATURE_RANGE}: {_NOT_USABLE[1]}.")
    return " ".join(sentences) or None
