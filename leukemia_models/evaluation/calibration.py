"""Probabilities that mean what they say, and a threshold that suits: validation predictions in, two numbers out.

Temperature scaling divides the log-odds by one number, which keeps every ranking and the meaning of 0.5 (Guo et al.
2017, On Calibration of Modern Neural Networks). The threshold is then chosen on the scaled probabilities. Both are
fitted on validation images alone and never on those that are evaluated with them. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.evaluated_samples import (
    DEFAULT_THRESHOLD,
    EvaluatedSamples,
    labels_and_probabilities,
    subjects_per_class,
)
from leukemia_models.evaluation.metrics import LOWEST_PROBABILITY, POSITIVE
from leukemia_models.evaluation.resampling import ENOUGH_SUBJECTS, MIN_SUBJECTS

TEMPERATURE_RANGE = (0.05, 20.0)
"""Outside, validation images do not say: they are all told apart (below), or not better than by chance (above)."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How probabilities are corrected before they are evaluated or used.

    Parameters
    ----------
    temperature : float
        Log-odds are divided by it: above 1 where the network is too sure of itself.
    threshold : float
        Of the corrected probability of class 1, in [0, 1).
    fitted_on : str
        The part they were fitted on, such as ``valid``.
    num_images : int
        Its labelled images.
    note : str or None
        Why the two numbers may not fit other people.
    is_usable : bool
        False where the note says that they must not be used: nothing is then reported with them.

    Raises
    ------
    UsageError
        If a number is out of range.
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
        """Return the samples with corrected probabilities."""
        return samples.with_probabilities(scaled_probabilities(samples.probabilities_N, self.temperature))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what :meth:`to_dict` gave; version 0.1 told in the note alone whether it is of use."""
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
        What to call them.
    classes : sequence of two str
        Names of class 0 and 1, for the note.

    Raises
    ------
    UsageError
        If the labels hold one class only.
    """
    if len(np.unique(samples.labels_N)) < 2:
        raise UsageError(f"temperature and threshold need {fitted_on} images of both classes")
    temperature = fit_temperature(samples.labels_N, samples.probabilities_N)
    scaled_N = scaled_probabilities(samples.probabilities_N, temperature)
    counts = subjects_per_class(samples.labels_N, samples.subjects)
    is_inside = TEMPERATURE_RANGE[0] * 1.01 < temperature < TEMPERATURE_RANGE[1] / 1.01
    return Calibration(
        temperature=temperature,
        threshold=fit_threshold(samples.labels_N, scaled_N),
        fitted_on=fitted_on,
        num_images=len(samples),
        note=_note(counts, classes, is_inside=is_inside),
        is_usable=is_inside and (counts is None or min(counts) >= MIN_SUBJECTS),
    )


def scaled_probabilities(probabilities_N: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Return probabilities of class 1 after their log-odds were divided by `temperature`: (N,), in [0, 1]."""
    scaled: npt.NDArray[np.float64] = expit(_log_odds(probabilities_N) / temperature)
    return scaled


def fit_temperature(labels_N: npt.NDArray[np.int64], probabilities_N: npt.NDArray[np.float64]) -> float:
    """Return the temperature with the lowest negative log-likelihood, within :data:`TEMPERATURE_RANGE`.

    Parameters
    ----------
    labels_N : int64 array (N,)
        0 or 1.
    probabilities_N : float64 array (N,)
        Of class 1.
    """
    labels_N, probabilities_N = labels_and_probabilities(labels_N, probabilities_N)
    wrong_log_odds_N = np.where(labels_N == POSITIVE, -1, 1) * _log_odds(probabilities_N)

    def loss(inverse: float) -> float:
        return float(np.mean(np.logaddexp(0, wrong_log_odds_N * inverse)))

    lowest, highest = TEMPERATURE_RANGE
    # Without the NLL's bounded cost of a certain answer, the loss is convex in the inverse temperature: one minimum.
    # With it, the loss is flat for all low temperatures of a network that is very sure, and the search ends there.
    found = minimize_scalar(loss, bounds=(1 / highest, 1 / lowest), method="bounded", options={"xatol": 1e-7})
    return float(1 / found.x)


def fit_threshold(labels_N: npt.NDArray[np.int64], probabilities_N: npt.NDArray[np.float64]) -> float:
    """Return the threshold with the highest balanced accuracy; of equally good ones the nearest to 0.5.

    Only the gap between two neighbouring probabilities matters. The answer is 0.5 where that lies in a best gap,
    otherwise the middle of the nearest best gap.

    Parameters
    ----------
    labels_N : int64 array (N,)
        0 and 1, both present.
    probabilities_N : float64 array (N,)
        Of class 1.
    """
    labels_N, probabilities_N = labels_and_probabilities(labels_N, probabilities_N)
    values, value_N = np.unique(probabilities_N, return_inverse=True)
    per_value = np.stack([np.bincount(value_N[labels_N == k], minlength=len(values)) for k in (0, 1)])
    # Gap k lies below value k and above value k - 1; what lies in or under it is called class 0.
    below = np.pad(per_value.cumsum(axis=1), ((0, 0), (1, 0)))
    called_right = np.stack([below[0], below[1, -1] - below[1]]) / below[:, -1:]
    recall_sum = called_right.sum(axis=0)
    starts, ends = np.append(0.0, values), np.append(values, 1.0)
    is_best = np.isclose(recall_sum, recall_sum[ends > starts].max(), rtol=0, atol=1e-12) & (ends > starts)
    if (is_best & (starts <= DEFAULT_THRESHOLD) & (ends > DEFAULT_THRESHOLD)).any():
        return DEFAULT_THRESHOLD
    middles = (starts + ends)[is_best] / 2
    return float(middles[np.abs(middles - DEFAULT_THRESHOLD).argmin()])


def _log_odds(probabilities_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    log_odds: npt.NDArray[np.float64] = logit(np.clip(probabilities_N, LOWEST_PROBABILITY, 1 - LOWEST_PROBABILITY))
    return log_odds


def _note(counts: tuple[int, ...] | None, classes: Sequence[str], *, is_inside: bool) -> str | None:
    """Say why temperature and threshold may not fit other people, from the subjects per class."""
    sentences = []
    if counts is None:
        sentences.append("The subjects behind temperature and threshold are unknown, and may be few.")
    elif min(counts) < ENOUGH_SUBJECTS:
        listed = " and ".join(f"{count} of class {name!r}" for count, name in zip(counts, classes, strict=True))
        advice = _NOT_USABLE[0] if min(counts) < MIN_SUBJECTS else "They may not suit others"
        sentences.append(f"Temperature and threshold were fitted on few subjects, {listed}. {advice}.")
    if not is_inside:
        sentences.append(f"The temperature ended at the border of its range {TEMPERATURE_RANGE}: {_NOT_USABLE[1]}.")
    return " ".join(sentences) or None
