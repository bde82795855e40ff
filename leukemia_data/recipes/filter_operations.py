"""Linear filters over a small neighbourhood: mean, high-pass and Gabor, as validated parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from leukemia_data.recipes.gabor_kernel import gabor_weights
from leukemia_data.recipes.operation_checks import require, require_kernel, require_room

_MIN_WAVELENGTH_PX = 2.0
_BASES = ("image", "gray")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanFilter:
    """Mean of the ``size_px`` x ``size_px`` pixels around each pixel (normalised box)."""

    op: ClassVar[str] = "mean_filter"
    version: ClassVar[int] = 1
    size_px: int = 3

    def __post_init__(self) -> None:
        require_kernel(self.op, self.size_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        require_room(self.op, self.size_px, side_px)
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class HighPass:
    """What the mean filter of the same size takes away, around the middle grey of 128."""

    op: ClassVar[str] = "high_pass"
    version: ClassVar[int] = 1
    size_px: int = 3

    def __post_init__(self) -> None:
        require_kernel(self.op, self.size_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        require_room(self.op, self.size_px, side_px)
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Gabor:
    """A wave of one length and direction under a Gaussian: its response, added to the image or to middle grey.

    Parameters
    ----------
    size_px
        Side of the kernel, odd.
    sigma_px
        Width of the Gaussian along the wave.
    theta_deg
        Direction in which the wave runs; 0 is along the rows, so that upright stripes answer.
    lambda_px
        Wavelength, at least 2 pixels.
    gamma
        Width along the wave divided by the width across it: below 1 the kernel is longer across.
    psi_deg
        Phase: 0 answers to stripes, 90 to edges.
    base
        ``image``: the signed response is added to the pixel, so that flat parts stay as they are. ``gray``: it is
        added to 128.
    """

    op: ClassVar[str] = "gabor"
    version: ClassVar[int] = 1
    size_px: int = 5
    sigma_px: float = 1.0
    theta_deg: float = 0.0
    lambda_px: float = 4.0
    gamma: float = 0.5
    psi_deg: float = 0.0
    base: Literal["image", "gray"] = "image"

    def __post_init__(self) -> None:
        require_kernel(self.op, self.size_px)
        require(
            self.lambda_px >= _MIN_WAVELENGTH_PX,
            f"gabor: lambda_px must be at least 2, got {self.lambda_px}: a wave shorter than two pixels lies beyond "
            "the Nyquist limit, its samples show another wave (at 1 px none: the kernel is a plain Gaussian)",
        )
        require(
            self.lambda_px <= 2 * self.size_px,
            f"gabor: lambda_px must be at most 2 * size_px = {2 * self.size_px}, got {self.lambda_px}: half a wave has "
            "to fit into the kernel",
        )
        require(0.3 <= self.sigma_px <= 50, f"gabor: sigma_px must lie in [0.3, 50], got {self.sigma_px}")
        require(0.1 <= self.gamma <= 10, f"gabor: gamma must lie in [0.1, 10], got {self.gamma}")
        for name, angle_deg in (("theta_deg", self.theta_deg), ("psi_deg", self.psi_deg)):
            require(-360 <= angle_deg <= 360, f"gabor: {name} must lie in [-360, 360], got {angle_deg}")
        require(self.base in _BASES, f"gabor: base must be image or gray, got {self.base!r}")
        require(
            self.weights() is not None,
            f"gabor: lambda_px {self.lambda_px} with psi_deg {self.psi_deg} leaves no wave at the kernel's pixels: "
            "choose a longer one or another phase",
        )

    def weights(self) -> tuple[tuple[float, ...], ...] | None:
        """Rows of the kernel, see :func:`~leukemia_data.recipes.gabor_kernel.gabor_weights`."""
        return gabor_weights(self.size_px, self.sigma_px, self.theta_deg, self.lambda_px, self.gamma, self.psi_deg)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        require_room(self.op, self.size_px, side_px)
        return side_px
