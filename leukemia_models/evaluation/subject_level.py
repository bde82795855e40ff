"""From images to people: predictions of a subject's cells in, one row and one prediction per subject out. No torch.

The subject is the clinical unit: a patient has leukaemia, not a cell. Two ways to join a subject's cells are computed:
``mean``, the mean probability of class 1 against the threshold, and ``vote``, the class that most of the cells were
given (class 0 when both got as many). Images whose subject nothing tells are left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, EvaluatedSamples
from leukemia_models.evaluation.metrics import ClassificationMetrics, classification_metrics

Joining = Literal["mean", "vote"]
SCORE_COLUMNS = {"mean": "mean_probability", "vote": "vote_share"}
MAJORITY = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class SubjectLevel:
    """What a network says of each subject.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a subject, see :func:`subject_table`.
    mean, vote : ClassificationMetrics or None
        Over the subjects whose images have one label; None where there is none.
    num_unknown_images : int
        Images left out because nothing says whose they are.
    mixed_subjects : tuple of str
        Subjects whose images have both labels: they are in the table, but no label is theirs to be evaluated by.
    """

    table: pd.DataFrame
    mean: ClassificationMetrics | None
    vote: ClassificationMetrics | None
    num_unknown_images: int
    mixed_subjects: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {
            "mean": self.mean.to_dict() if self.mean else None,
            "vote": self.vote.to_dict() if self.vote else None,
            "num_unknown_images": self.num_unknown_images,
            "mixed_subjects": list(self.mixed_subjects),
            "subjects": self.table.astype({"label": object}).replace({pd.NA: None}).to_dict("records"),
        }


def subject_level(
    samples: EvaluatedSamples, classes: Sequence[str] = ("hem", "all"), *, threshold: float = DEFAULT_THRESHOLD
) -> SubjectLevel:
    """Evaluate a network per subject.

    Parameters
    ----------
    samples : EvaluatedSamples
        Images.
    classes : sequence of two str
        Names of class 0 and 1, for warnings.
    threshold : float
        Of an image's probability and of a subject's mean probability. A vote always needs more than half of the cells.
    """
    table = subject_table(samples, threshold=threshold)
    evaluated = {how: subject_samples(samples, how, threshold=threshold) for how in SCORE_COLUMNS}
    return SubjectLevel(
        table=table,
        mean=_evaluate(evaluated["mean"], classes, threshold, are_probabilities=True),
        vote=_evaluate(evaluated["vote"], classes, MAJORITY, are_probabilities=False),
        num_unknown_images=sum(not subject for subject in samples.subjects),
        mixed_subjects=tuple(table["subject"][table["label"].isna()]),
    )


def subject_table(samples: EvaluatedSamples, *, threshold: float = DEFAULT_THRESHOLD) -> pd.DataFrame:
    """Return one row for each subject with a name.

    Returns
    -------
    pandas.DataFrame
        ``subject``; ``label`` (missing where its images have both); ``images``; ``share_right``, of its images;
        ``mean_probability``, of class 1; ``vote_share``, of its images that were called class 1; ``prediction_mean``
        and ``prediction_vote``. By label and then by name, ``2`` before ``10``.
    """
    rows = np.flatnonzero([bool(subject) for subject in samples.subjects])
    names, subject_N = np.unique(np.array([samples.subjects[row] for row in rows], object), return_inverse=True)
    labels_N, probabilities_N = samples.labels_N[rows], samples.probabilities_N[rows]
    calls_N = probabilities_N > threshold
    count_S = np.bincount(subject_N, minlength=len(names))

    def mean_S(values_N: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.bincount(subject_N, values_N, len(names)) / count_S

    positive_share_S, vote_share_S, probability_S = mean_S(labels_N), mean_S(calls_N), mean_S(probabilities_N)
    labels = pd.array(positive_share_S.round().astype(np.int64), dtype="Int64")
    labels[(positive_share_S > 0) & (positive_share_S < 1)] = pd.NA
    table = pd.DataFrame(
        {
            "subject": pd.Series(names, dtype=object),
            "label": labels,
            "images": count_S,
            "share_right": mean_S(calls_N == labels_N),
            # A mean of probabilities may pass 1 by a rounding error.
            "mean_probability": probability_S.clip(0, 1),
            "vote_share": vote_share_S,
            "prediction_mean": (probability_S > threshold).astype(np.int64),
            "prediction_vote": (vote_share_S > MAJORITY).astype(np.int64),
        }
    )
    order = sorted(range(len(table)), key=lambda row: (positive_share_S[row], len(names[row]), names[row]))
    return table.iloc[order].reset_index(drop=True)


def with_class_names(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return a table of subjects with the names of classes in the place of 0 and 1, "" where there is none.

    The columns of scores get the positive class in their names: ``mean_probability_all``, ``vote_share_all``.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`subject_table`.
    classes : sequence of two str
        Names of class 0 and 1.
    """
    name_of = dict(enumerate(classes))
    columns = ("label", "prediction_mean", "prediction_vote")
    named = {column: table[column].map(name_of, na_action="ignore").astype(object) for column in columns}
    table = table.assign(**{column: names.where(names.notna(), "") for column, names in named.items()})
    return table.rename(columns={column: f"{column}_{classes[1]}" for column in SCORE_COLUMNS.values()})


def subject_samples(
    samples: EvaluatedSamples, how: Joining | str = "mean", *, threshold: float = DEFAULT_THRESHOLD
) -> EvaluatedSamples | None:
    """Return one sample a subject, with its joined score in the place of a probability.

    Subjects without a name, or with images of both labels, are left out; None when no subject is left.

    Parameters
    ----------
    samples : EvaluatedSamples
        Images.
    how : "mean" or "vote"
        Mean probability, or the share of images that were called class 1.
    threshold : float
        Of an image's probability, for votes.
    """
    table = subject_table(samples, threshold=threshold)
    table = table[table["label"].notna()]
    if table.empty:
        return None
    subjects = tuple(table["subject"])
    return EvaluatedSamples(
        subjects, subjects, table["label"].to_numpy(np.int64), table[SCORE_COLUMNS[how]].to_numpy(np.float64)
    )


def _evaluate(
    samples: EvaluatedSamples | None, classes: Sequence[str], threshold: float, *, are_probabilities: bool
) -> ClassificationMetrics | None:
    if samples is None:
        return None
    return classification_metrics(
        samples.labels_N,
        samples.probabilities_NK,
        classes,
        threshold=threshold,
        are_probabilities=are_probabilities,
    )
