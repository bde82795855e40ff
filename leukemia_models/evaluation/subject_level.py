"""Subject-level evaluation, by joining the predictions of a subject's cells. No torch.

There are two ways to join them: ``mean``, the mean probability of class 1 against the threshold, and ``vote``, the
predicted class of most cells (class 0 if equal). Images of unknown subjects are excluded and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leukemia_data.lazy_imports import pd
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, EvaluatedSamples
from leukemia_models.evaluation.metrics import ClassificationMetrics, classification_metrics

SCORE_COLUMNS = {"mean": "mean_probability", "vote": "vote_share"}
MAJORITY = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class SubjectLevel:
    """Predictions and metrics per subject.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`subject_table`.
    mean, vote : ClassificationMetrics or None
        Over the subjects whose images have one label; None if there is none.
    num_unknown_images : int
        Number of images of unknown subjects.
    mixed_subjects : tuple of str
        Subjects whose images have both labels; they are in the table, but not evaluated.
    """

    table: pd.DataFrame
    mean: ClassificationMetrics | None
    vote: ClassificationMetrics | None
    num_unknown_images: int
    mixed_subjects: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
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
    """Evaluate images per subject.

    Parameters
    ----------
    samples : EvaluatedSamples
    classes : sequence of two str
        Names of class 0 and 1, for warnings.
    threshold : float
        For the probability of an image, and the mean probability of a subject. A vote needs more than half of the
        cells.
    """
    table = subject_table(samples, threshold=threshold)

    def evaluated(how: str, threshold_of_score: float) -> ClassificationMetrics | None:
        subjects = subject_samples(samples, how, threshold=threshold)
        if subjects is None:
            return None
        return classification_metrics(
            subjects.labels_N,
            subjects.probabilities_NK,
            classes,
            threshold=threshold_of_score,
            are_probabilities=how == "mean",
        )

    return SubjectLevel(
        table=table,
        mean=evaluated("mean", threshold),
        vote=evaluated("vote", MAJORITY),
        num_unknown_images=sum(not subject for subject in samples.subjects),
        mixed_subjects=tuple(table["subject"][table["label"].isna()]),
    )


def subject_table(samples: EvaluatedSamples, *, threshold: float = DEFAULT_THRESHOLD) -> pd.DataFrame:
    """Return one row for each known subject.

    Returns
    -------
    pandas.DataFrame
        ``subject``; ``label`` (missing if its images have both); ``images``, their number; ``share_right``, the
        accuracy; ``mean_probability`` of class 1; ``vote_share``, the fraction predicted as class 1;
        ``prediction_mean`` and ``prediction_vote``. Sorted by label and name, ``2`` before ``10``.
    """
    rows = np.flatnonzero([bool(subject) for subject in samples.subjects])
    names, subject_N = np.unique(np.array([samples.subjects[row] for row in rows], object), return_inverse=True)
    labels_N, probabilities_N = samples.labels_N[rows], samples.probabilities_N[rows]
    predictions_N = probabilities_N > threshold
    count_S = np.bincount(subject_N, minlength=len(names))

    def mean_S(values_N: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.bincount(subject_N, values_N, len(names)) / count_S

    label_S, vote_S, probability_S = mean_S(labels_N), mean_S(predictions_N), mean_S(probabilities_N)
    labels = pd.array(label_S.round().astype(np.int64), dtype="Int64")
    labels[(label_S > 0) & (label_S < 1)] = pd.NA
    table = pd.DataFrame(
        {
            "subject": pd.Series(names, dtype=object),
            "label": labels,
            "images": count_S,
            "share_right": mean_S(predictions_N == labels_N),
            # Rounding errors may make the mean larger than 1.
            "mean_probability": probability_S.clip(0, 1),
            "vote_share": vote_S,
            "prediction_mean": (probability_S > threshold).astype(np.int64),
            "prediction_vote": (vote_S > MAJORITY).astype(np.int64),
        }
    )
    order = sorted(range(len(table)), key=lambda row: (label_S[row], len(names[row]), names[row]))
    return table.iloc[order].reset_index(drop=True)


def with_class_names(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return a table from :func:`subject_table` with class names instead of 0 and 1, and "" for a missing label.

    The columns of scores are renamed to ``mean_probability_<class 1>`` and ``vote_share_<class 1>``.
    """
    name_of = dict(enumerate(classes))
    columns = ("label", "prediction_mean", "prediction_vote")
    named = {column: table[column].map(name_of, na_action="ignore").astype(object) for column in columns}
    table = table.assign(**{column: names.where(names.notna(), "") for column, names in named.items()})
    return table.rename(columns={column: f"{column}_{classes[1]}" for column in SCORE_COLUMNS.values()})


def subject_samples(
    samples: EvaluatedSamples, how: str = "mean", *, threshold: float = DEFAULT_THRESHOLD
) -> EvaluatedSamples | None:
    """Return one sample for each known subject with images of one label, or None without any.

    Parameters
    ----------
    samples : EvaluatedSamples
        Images.
    how : {"mean", "vote"}
        Whether the score is the mean probability, or the fraction of images predicted as class 1.
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
