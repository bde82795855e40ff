"""How images spread over classes and subjects: images in, counts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from leukemia_data.auditing.audit_image import AuditImage
from leukemia_data.auditing.audit_pairs import subject_order


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """One class: its images and whose they are.

    Attributes
    ----------
    name
        Of the class; empty for unlabelled images.
    num_images
        Of the class, those of unknown subjects included.
    images_per_subject
        Subject -> number of images, most first.
    num_unknown
        Images whose subject nothing tells.
    """

    name: str
    num_images: int
    images_per_subject: dict[str, int]
    num_unknown: int

    @property
    def largest_share(self) -> float:
        """Share of the class's images that its most frequent subject has, 0 ... 1; 0 where no subject is known."""
        return max(self.images_per_subject.values(), default=0) / self.num_images

    def describe(self) -> str:
        """One line for people."""
        counts = list(self.images_per_subject.values())
        if not counts:
            return f"{self.num_images:,} images of unknown subjects"
        largest = next(iter(self.images_per_subject))
        unknown = f", {self.num_unknown:,} of unknown subjects" if self.num_unknown else ""
        return (
            f"{self.num_images:,} images of {len(counts)} subjects, {min(counts)} to {max(counts)} each "
            f"(median {median(counts):g}); largest: {largest}, {self.largest_share:.1%} of the class{unknown}"
        )


def class_balance(images: Sequence[AuditImage]) -> list[ClassBalance]:
    """Balance of each class in the order of their names, unlabelled images last."""
    names = sorted({image.class_name for image in images}, key=lambda name: (not name, name))
    return [_balance(name, [image.subject for image in images if image.class_name == name]) for name in names]


def _balance(name: str, subjects: list[str]) -> ClassBalance:
    counts = Counter(subject for subject in subjects if subject)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], subject_order(item[0])))
    return ClassBalance(name, len(subjects), dict(ordered), len(subjects) - counts.total())
