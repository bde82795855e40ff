"""Settings of evaluation: test-time augmentation and BatchNorm statistics. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leukemia_data.errors import UsageError

NONE, D4, ROTATIONS = "none", "d4", "rotations"
LOGITS, PROBABILITIES = "logits", "probabilities"
AVERAGES = (LOGITS, PROBABILITIES)
ROTATION_COUNTS = range(2, 361)


@dataclass(frozen=True)
class Tta:
    """Test-time augmentation: the views of an image, and how their predictions are averaged.

    Parameters
    ----------
    kind : str
        ``none`` (the image itself), ``d4`` or ``rotations``.
    num_rotations : int
        2 to 360 equally spaced ``rotations``; 0 for other kinds.
    average : str
        One of :data:`AVERAGES`. The mean of logits is the normalised geometric mean of the probabilities.

    Raises
    ------
    UsageError
        If a value is unknown or out of range.
    """

    kind: str = NONE
    num_rotations: int = 0
    average: str = LOGITS

    def __post_init__(self) -> None:
        if self.kind not in (NONE, D4, ROTATIONS):
            raise UsageError(f"test-time augmentation {self.kind!r} is unknown; known are none, d4 and rotations:N")
        if self.kind == ROTATIONS and self.num_rotations not in ROTATION_COUNTS:
            raise UsageError(f"rotations:N takes 2 to 360 rotations, got {self.num_rotations}; an example: rotations:8")
        if self.kind != ROTATIONS and self.num_rotations:
            raise UsageError(f"test-time augmentation {self.kind!r} has no number of rotations")
        if self.average not in AVERAGES:
            raise UsageError(f"the average {self.average!r} is unknown; known are {' and '.join(AVERAGES)}")

    def __str__(self) -> str:
        """Return the views as :func:`parse_tta` reads them."""
        return f"{self.kind}:{self.num_rotations}" if self.kind == ROTATIONS else self.kind

    @property
    def num_views(self) -> int:
        """Number of forward passes for each image."""
        return {NONE: 1, D4: 8}.get(self.kind, self.num_rotations)

    @property
    def description(self) -> str:
        """The views and the average, for messages."""
        return NONE if self.kind == NONE else f"{self}, mean of {self.average}"

    def to_dict(self) -> dict[str, str]:
        """Return ``views`` and ``average`` as JSON values."""
        return {"views": str(self), "average": self.average}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tta:
        """Return what :meth:`to_dict` wrote; raise UsageError for wrong values."""
        found = [values.get(name) for name in ("views", "average")] if isinstance(values, Mapping) else []
        if not found or not all(isinstance(text, str) for text in found):
            raise UsageError(f"test-time augmentation is stored as views and average, not as {values!r:.60}")
        return parse_tta(*map(str, found))


NO_TTA = Tta()


def parse_tta(text: str, average: str = LOGITS) -> Tta:
    """Parse ``none``, ``d4`` or ``rotations:N``; raise UsageError for anything else.

    >>> parse_tta("rotations:8").num_views
    8
    """
    kind, _, number = text.partition(":")
    if kind != ROTATIONS:
        return Tta(text, average=average)
    if not (number.isascii() and number.isdecimal()):
        raise UsageError(f"test-time augmentation {text!r}: say how many rotations, for example rotations:8")
    return Tta(kind, int(number), average)


AUTO, RUNNING, REESTIMATED = "auto", "running", "reestimated"
BATCHNORM_MODES = (AUTO, RUNNING, REESTIMATED)
"""BatchNorm statistics of training, of clean training images, or those with the better validation loss."""


def require_batchnorm_mode(mode: str) -> None:
    """Raise UsageError unless `mode` is one of :data:`BATCHNORM_MODES`."""
    if mode not in BATCHNORM_MODES:
        raise UsageError(f"unknown BatchNorm mode {mode!r}; known modes: {', '.join(BATCHNORM_MODES)}")
