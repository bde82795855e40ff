"""A split as reports describe it: how much each part holds, and what stands on two sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from leukemia_data.splitting.leaks import LeakCheck


@dataclass(frozen=True)
class SplitCounts:
    """How much one part of a split holds.

    Parameters
    ----------
    images_per_class : tuple of int
        One number per class.
    subjects_per_class : tuple of int or None
        None where the source does not name subjects.
    """

    images_per_class: tuple[int, ...]
    subjects_per_class: tuple[int, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return {"images_per_class": self.images_per_class, "subjects_per_class": self.subjects_per_class}


@dataclass(frozen=True)
class SplitSummary:
    """How a run's data were split.

    Parameters
    ----------
    kind : str
        As the user named it: ``subject``, ``image``, ``given``, ``fold:1/5``.
    leaks : LeakCheck
        What stands on two sides of it.
    judged : str
        The part that was judged, such as ``valid`` or ``test``.
    parts : mapping of str to SplitCounts
        ``train``, ``valid``, ``test``.
    num_trained : int
        Judged images that the network was trained on, as in the parts ``train`` and ``all``.
    """

    kind: str
    leaks: LeakCheck
    judged: str
    parts: Mapping[str, SplitCounts]
    num_trained: int = 0

    @property
    def stamp(self) -> str:
        """The words that go on every table, figure and page."""
        return part_stamp(self.leaks, self.num_trained)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the stamp as JSON can hold them."""
        parts = {name: counts.to_dict() for name, counts in self.parts.items()}
        return {**vars(self), "leaks": asdict(self.leaks), "parts": parts, "stamp": self.stamp}


def part_stamp(leaks: LeakCheck, num_trained: int) -> str:
    """Return the stamp of an evaluated part, never disjoint where it holds images that the network was trained on."""
    if not num_trained:
        return leaks.stamp
    return f"TRAINING IMAGES ({num_trained:,} of the evaluated ones; the split is {leaks.stamp})"
