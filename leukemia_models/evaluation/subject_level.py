"""Subject-level evaluation, by joining the predictions of a subject's cells. No torch.

There are two ways to join them: ``mean``, the mean probabilities of the classes (of class 1 of two against the
threshold), and ``vote``, the predicted class of most cells (the first of equals). Images of unknown subjects are
excluded and counted. Subjects whose images have several classes are not evaluated by them; of more than two classes, as
in differential counts, the true and the predicted share of each class are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leukemia_data.lazy_imports import pd
from leukemia_models.evaluation.classification import ClassificationMetrics, classification_metrics
from leukemia_models.evaluation.evaluated_samples import DEFAULT_THRESHOLD, EvaluatedSamples, predicted_classes

MEAN, VOTE, LABELLED = "mean_probability", "vote_share", "label_share"
SCORE_COLUMNS = {"mean": MEAN, "vote": VOTE}
MAJORITY = 0.5
Floats = npt.NDArray[np.float64]


def score_columns(score: str, num_classes: int) -> list[str]:
    """Return the columns of a score: that of class 1 of two classes, else one for each class, by its number."""
    return [score] if num_classes == 2 else [f"{score}_{label}" for label in range(num_classes)]


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
        Subjects whose images have several labels; they are in the table, but not evaluated.
    share_errors : tuple of float or None
        Of more than two classes: mean distance of the true and the predicted share of each class, (K,), over all known
        subjects; None without any.
    """

    table: pd.DataFrame
    mean: ClassificationMetrics | None
    vote: ClassificationMetrics | None
    num_unknown_images: int
    mixed_subjects: tuple[str, ...]
    share_errors: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        errors = {} if self.share_errors is None else {"share_errors": list(self.share_errors)}
        return {
            "mean": self.mean.to_dict() if self.mean else None,
            "vote": self.vote.to_dict() if self.vote else None,
            "num_unknown_images": self.num_unknown_images,
            "mixed_subjects": list(self.mixed_subjects),
            **errors,
            "subjects": self.table.astype({"label": object}).replace({pd.NA: None}).to_dict("records"),
        }


def subject_level(
    samples: EvaluatedSamples, classes: Sequence[str] = ("hem", "all"), *, threshold: float = DEFAULT_THRESHOLD
) -> SubjectLevel:
    """Evaluate images per subject.

    Parameters
    ----------
    samples : EvaluatedSamples
    classes : sequence of str
        Names of the classes, for warnings.
    threshold : float
        Of two classes, for the probability of an image and the mean probability of a subject. A vote needs more than
        half of the cells.
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
        share_errors=_share_errors(table, samples.num_classes) if samples.num_classes > 2 and len(table) else None,
    )


def _share_errors(table: pd.DataFrame, num_classes: int) -> tuple[float, ...]:
    true_SK, predicted_SK = (table[score_columns(name, num_classes)].to_numpy() for name in (LABELLED, VOTE))
    return tuple(np.abs(true_SK - predicted_SK).mean(axis=0).tolist())


def subject_table(samples: EvaluatedSamples, *, threshold: float = DEFAULT_THRESHOLD) -> pd.DataFrame:
    """Return one row for each known subject.

    Returns
    -------
    pandas.DataFrame
        ``subject``; ``label`` (missing if its images have several); ``images``, their number; ``share_right``, the
        accuracy; ``mean_probability`` of class 1; ``vote_share``, the fraction predicted as class 1;
        ``prediction_mean`` and ``prediction_vote``. Of more than two classes each score has a column for every class,
        ``mean_probability_0`` and so on, and ``label_share_0`` and so on are the true fractions. Sorted by label and
        name, ``2`` before ``10``.
    """
    rows = np.flatnonzero([bool(subject) for subject in samples.subjects])
    names, subject_N = np.unique(np.array([samples.subjects[row] for row in rows], object), return_inverse=True)
    labels_N, probabilities_NK = samples.labels_N[rows], samples.probabilities_NK[rows]
    predictions_N, num_classes = samples.predictions_N(threshold)[rows], samples.num_classes
    count_S = np.bincount(subject_N, minlength=len(names))

    def mean_S(values_N: npt.NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(subject_N, values_N, len(names)) / count_S)

    def mean_SK(values_NK: npt.NDArray[Any]) -> Floats:
        means = [mean_S(column_N) for column_N in values_NK.T]
        return np.stack([1 - means[1], means[1]] if num_classes == 2 else means, axis=1)

    numbers_K = np.arange(num_classes)
    label_SK, vote_SK = mean_SK(labels_N[:, None] == numbers_K), mean_SK(predictions_N[:, None] == numbers_K)
    # Rounding errors may make the mean larger than 1.
    probability_SK = mean_SK(probabilities_NK).clip(0, 1)
    labels = pd.array(label_SK.argmax(axis=1).astype(np.int64), dtype="Int64")
    labels[label_SK.max(axis=1, initial=0) < 1] = pd.NA
    scores = {**_columns(MEAN, probability_SK), **_columns(VOTE, vote_SK)}
    true_shares = _columns(LABELLED, label_SK) if num_classes > 2 else {}
    table = pd.DataFrame(
        {
            "subject": pd.Series(names, dtype=object),
            "label": labels,
            "images": count_S,
            "share_right": mean_S(predictions_N == labels_N),
            **scores,
            **true_shares,
            "prediction_mean": predicted_classes(probability_SK, threshold),
            "prediction_vote": predicted_classes(vote_SK, MAJORITY),
        }
    )
    mean_label_S = mean_S(labels_N)
    order = sorted(range(len(table)), key=lambda row: (mean_label_S[row], len(names[row]), names[row]))
    return table.iloc[order].reset_index(drop=True)


def _columns(score: str, values_SK: Floats) -> dict[str, Floats]:
    num_classes = values_SK.shape[1]
    shown_SK = values_SK[:, 1:] if num_classes == 2 else values_SK
    return dict(zip(score_columns(score, num_classes), shown_SK.T, strict=True))


def with_class_names(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return a table from :func:`subject_table` with class names instead of numbers, and "" for a missing label.

    Columns of scores are renamed too: ``mean_probability_<class>``, of two classes those of class 1.
    """
    name_of = dict(enumerate(classes))
    columns = ("label", "prediction_mean", "prediction_vote")
    named = {column: table[column].map(name_of, na_action="ignore").astype(object) for column in columns}
    table = table.assign(**{column: names.where(names.notna(), "") for column, names in named.items()})
    shown = classes[1:] if len(classes) == 2 else classes
    renamed = {
        column: f"{score}_{name}"
        for score in (MEAN, VOTE, LABELLED)
        for column, name in zip(score_columns(score, len(classes)), shown, strict=True)
    }
    return table.rename(columns=renamed)


def subject_samples(
    samples: EvaluatedSamples, how: str = "mean", *, threshold: float = DEFAULT_THRESHOLD
) -> EvaluatedSamples | None:
    """Return one sample for each known subject with images of one label, or None without any.

    Parameters
    ----------
    samples : EvaluatedSamples
        Images.
    how : {"mean", "vote"}
        Whether the scores are the mean probabilities, or the fractions of images predicted as each class.
    threshold : float
        Of an image's probability of class 1 of two, for votes.
    """
    table = subject_table(samples, threshold=threshold)
    table = table[table["label"].notna()]
    if table.empty:
        return None
    subjects = tuple(table["subject"])
    scores = table[score_columns(SCORE_COLUMNS[how], samples.num_classes)].to_numpy(np.float64)
    labels_S = table["label"].to_numpy(np.int64)
    return EvaluatedSamples(subjects, subjects, labels_S, scores[:, 0] if samples.num_classes == 2 else scores)
