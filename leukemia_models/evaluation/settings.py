"""How a network is evaluated: views of each image, and which BatchNorm statistics. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leukemia_data.errors import UsageError

NONE, D4, ROTATIONS = "none", "d4", "rotations"
LOGITS, PROBABILITIES = "logits", "probabilities"
AVERAGES = (LOGITS, PROBABILITIES)
ROTATION_COUNTS = range(2, 361)
_NUM_D4_VIEWS = 8


@dataclass(frozen=True)
class Tta:
    """Which views of an image the network is shown, and how its answers become one.

    Parameters
    ----------
    kind : str
        ``none`` (the image as it is), ``d4`` or ``rotations``.
    num_rotations : int
        Of ``rotations``: 2 to 360, evenly spread over the full turn; otherwise 0.
    average : str
        One of :data:`AVERAGES`. The mean of logits is the normalised geometric mean of the views' probabilities: one
        view that is sure counts for more than in the mean of probabilities.

    Raises
    ------
    UsageError
        If one of them is unknown or out of range.
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
        """How often the network runs for each image."""
        return {NONE: 1, D4: _NUM_D4_VIEWS}.get(self.kind, self.num_rotations)

    @property
    def description(self) -> str:
        """The views and the average for people."""
        return NONE if self.kind == NONE else f"{self}, mean of {self.average}"

    def to_dict(self) -> dict[str, str]:
        """Return ``views`` and ``average`` as JSON can hold them."""
        return {"views": str(self), "average": self.average}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tta:
        """Return what :meth:`to_dict` wrote.

        Raises
        ------
        UsageError
            If the values are something else, as in a damaged file.
        """
        found = [values.get(name) for name in ("views", "average")] if isinstance(values, Mapping) else []
        if not found or not all(isinstance(text, str) for text in found):
            raise UsageError(f"test-time augmentation is stored as views and average, not as {values!r:.60}")
        return parse_tta(*map(str, found))


NO_TTA = Tta()


def parse_tta(text: str, average: str = LOGITS) -> Tta:
    """Read ``none``, ``d4`` or ``rotations:N``.

    >>> parse_tta("rotations:8").num_views
    8

    Raises
    ------
    UsageError
        If the text or the average is something else.
    """
    kind, _, number = text.partition(":")
    if kind != ROTATIONS:
        return Tta(text, average=average)
    if not (number.isascii() and number.isdecimal()):
        raise UsageError(f"test-time augmentation {text!r}: say how many rotations, for example rotations:8")
    return Tta(kind, int(number), average)


AUTO, RUNNING, REESTIMATED = "auto", "running", "reestimated"
BATCHNORM_MODES = (AUTO, RUNNING, REESTIMATED)
"""Statistics of training, those of clean training images, or whichever do better on the validation part."""


def require_batchnorm_mode(mode: str) -> None:
    """Refuse a mode that is not one of `BATCHNORM_MODES`.

    Raises
    ------
    UsageError
        With the known ones.
    """
    if mode not in BATCHNORM_MODES:
        raise UsageError(f"unknown BatchNorm mode {mode!r}; known modes: {', '.join(BATCHNORM_MODES)}")
