"""An audit's last sentences: its findings, and what they mean for a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leukemia_data.auditing.audit_check import Check
from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_split import TrainingSplit, training_split
from leukemia_data.errors import UsageError
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.leaks import is_disjoint_stamp
from leukemia_data.splitting.split_spec import SplitSpec


@dataclass(frozen=True, slots=True)
class TrainingOutlook:
    """What a training would be told of its split: the stamp, or why the images cannot be split so."""

    split: str
    seed: int
    stamp: str = ""
    refusal: str = ""

    @property
    def is_disjoint(self) -> bool:
        """Whether the training would begin, with results that may be called results on unseen patients."""
        return is_disjoint_stamp(self.stamp)

    def describe(self) -> str:
        """One sentence."""
        if self.refusal:
            return f"A training on --split {self.split} would be refused: {self.refusal}"
        start = f"A training on --split {self.split} (split seed {self.seed}) would be"
        return f"{start} stamped {self.stamp}." if self.is_disjoint else f"{start} refused as {self.stamp}."


def training_outlook(
    spec: SplitSpec,
    images: Sequence[AuditImage],
    seed: int,
    classes: Sequence[str],
    subjects: SubjectsFound | None = None,
    *,
    split: TrainingSplit | None = None,
) -> TrainingOutlook | None:
    """What ``ltrain`` would say of a split of these images; None where their pixels are not known.

    The arguments are those of :func:`~leukemia_data.auditing.audit_split.training_split`; `split` is what that
    returned, where it was called already.
    """
    if not any(image.pixel_digest for image in images):
        return None
    try:
        found = split if split is not None else training_split(spec, images, seed, classes, subjects)
    except UsageError as error:
        return TrainingOutlook(str(spec), seed, refusal=str(error))
    return TrainingOutlook(str(spec), seed, found.leaks.stamp)


def conclusion(checks: Sequence[Check], outlook: TrainingOutlook | None) -> list[str]:
    """Sentences that follow from an audit's checks, and from what a training would be told.

    Parameters
    ----------
    checks
        Of the report.
    outlook
        Of the split that was asked about, or of the one that a training takes by default; None where it is not known.
    """
    num_leaks = sum(check.verdict == "LEAK" for check in checks)
    num_wrong = sum(check.verdict == "WRONG" for check in checks)
    sentences = []
    if num_leaks:
        sentences.append("1 finding is a leak." if num_leaks == 1 else f"{num_leaks} findings are leaks.")
    if num_wrong:
        sentences.append(
            "1 finding is a contradiction." if num_wrong == 1 else f"{num_wrong} findings are contradictions."
        )
    if not sentences and (outlook is None or outlook.is_disjoint):
        sentences.append("No leak was found by what could be checked.")
    if any(check.key == "no_subject" and check.count for check in checks):
        sentences.append("Where the subject is not known, nobody can say whether a split keeps people apart.")
    return [*sentences, *([] if outlook is None else [outlook.describe()])]
