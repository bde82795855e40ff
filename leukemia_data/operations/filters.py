"""Linear filters over a small neighbourhood: unsharp mask, mean, high-pass and Gabor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from leukemia_data.errors import require
from leukemia_data.lazy_imports import cv2, np
from leukemia_data.operations.operation import OPERATIONS, Image, Operation

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows = tuple[tuple[float, ...], ...]

MAX_KERNEL_PX = 63
MIDDLE_GREY = 128
_MIN_SHARE = 1e-6


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Unsharp(Operation):
    """Unsharp mask: image * (1 + strength) - Gaussian(image, sigma) * strength, saturated to 0..255."""

    op: ClassVar[str] = "unsharp"
    label: ClassVar[str] = "unsharp sigma {sigma_px:g}, {strength:g}"
    sigma_px: float = 3.0
    strength: float = 1.5

    def __post_init__(self) -> None:
        require(0.1 <= self.sigma_px <= 50, f"unsharp: sigma_px must lie in [0.1, 50], got {self.sigma_px}")
        require(0 < self.strength <= 20, f"unsharp: strength must lie in (0, 20], got {self.strength}")

    @property
    def reach_px(self) -> int:
        """See :attr:`Operation.reach_px`; three sigma, as OpenCV chooses it for 8-bit images."""
        return (round(6 * self.sigma_px + 1) | 1) // 2

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        require(side_px > self.reach_px, f"unsharp: sigma_px {self.sigma_px} is too wide for {side_px} px")
        return side_px

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        # The border is mirrored without the edge pixel.
        side = 2 * self.reach_px + 1
        blurred = cv2.GaussianBlur(image_HWC, (side, side), self.sigma_px)
        return np.asarray(cv2.addWeighted(image_HWC, 1 + self.strength, blurred, -self.strength, 0), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFilter(Operation):
    """Base class of filters over the ``size_px`` x ``size_px`` pixels around each pixel."""

    size_px: int = 3

    def __post_init__(self) -> None:
        is_fit = 3 <= self.size_px <= MAX_KERNEL_PX and self.size_px % 2 == 1
        require(is_fit, f"{self.op}: size_px must be an odd number in 3..{MAX_KERNEL_PX}, got {self.size_px}")

    @property
    def reach_px(self) -> int:
        """See :attr:`Operation.reach_px`."""
        return self.size_px // 2

    def output_side(self, side_px: int, size_px: int) -> int:
        """See :meth:`Operation.output_side`."""
        require(self.size_px <= side_px, f"{self.op}: size_px {self.size_px} is too wide for {side_px} px")
        return side_px


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class MeanFilter(KernelFilter):
    """Mean of the ``size_px`` x ``size_px`` pixels around each pixel (normalised box)."""

    op: ClassVar[str] = "mean_filter"
    label: ClassVar[str] = "mean filter {size_px}x{size_px}"

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        return np.asarray(cv2.blur(image_HWC, (self.size_px, self.size_px)), np.uint8)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class HighPass(KernelFilter):
    """Difference from the mean filter of the same size, plus 128."""

    op: ClassVar[str] = "high_pass"
    label: ClassVar[str] = "high pass {size_px}x{size_px}"

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        kernel = np.full((self.size_px, self.size_px), -1 / self.size_px**2)
        kernel[self.size_px // 2, self.size_px // 2] += 1
        return np.asarray(cv2.filter2D(image_HWC, cv2.CV_8U, kernel, delta=MIDDLE_GREY), np.uint8)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Gabor(KernelFilter):
    """Gabor filter: adds its signed response to the image or to middle grey.

    Parameters
    ----------
    size_px
        Side of the kernel, odd.
    sigma_px
        Width of the Gaussian along the wave.
    theta_deg
        Direction of the wave; 0 is along the rows, which responds to vertical stripes.
    lambda_px
        Wavelength, at least 2 pixels.
    gamma
        Width along the wave divided by the width across it: below 1 the kernel is longer across.
    psi_deg
        Phase: 0 responds to stripes, 90 to edges.
    base
        What the response is added to: ``image`` for the pixel, ``gray`` for 128.
    """

    op: ClassVar[str] = "gabor"
    label: ClassVar[str] = "Gabor {theta_deg:g}°, {lambda_px:g} px"
    size_px: int = 5
    sigma_px: float = 1.0
    theta_deg: float = 0.0
    lambda_px: float = 4.0
    gamma: float = 0.5
    psi_deg: float = 0.0
    base: Literal["image", "gray"] = "image"

    def __post_init__(self) -> None:
        KernelFilter.__post_init__(self)
        require(
            self.lambda_px >= 2,
            f"gabor: lambda_px must be at least 2, got {self.lambda_px}: a wave shorter than two pixels is beyond the "
            "Nyquist limit, its samples show another wave (at 1 px none: the kernel is a plain Gaussian)",
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
        require(self.base in ("image", "gray"), f"gabor: base must be image or gray, got {self.base!r}")
        require(
            self.weights() is not None,
            f"gabor: lambda_px {self.lambda_px} with psi_deg {self.psi_deg} leaves no wave at the kernel's pixels: "
            "choose a longer one or another phase",
        )

    def weights(self) -> Rows | None:
        """Return the rows of the kernel, see :func:`gabor_weights`."""
        return gabor_weights(self.size_px, self.sigma_px, self.theta_deg, self.lambda_px, self.gamma, self.psi_deg)

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        delta = MIDDLE_GREY if self.base == "gray" else 0
        return np.asarray(cv2.filter2D(image_HWC, cv2.CV_8U, _gabor_kernel(self), delta=delta), np.uint8)


@lru_cache(maxsize=16)
def _gabor_kernel(step: Gabor) -> NDArray[np.float64]:
    """Weights for correlation; with base ``image``, the identity is added."""
    kernel_KK = np.array(step.weights())
    kernel_KK[step.size_px // 2, step.size_px // 2] += step.base == "image"
    return kernel_KK


def gabor_weights(
    size_px: int, sigma_px: float, theta_deg: float, lambda_px: float, gamma: float, psi_deg: float
) -> Rows | None:
    """Return a kernel whose positive weights sum to one and negative weights to minus one.

    The response is 0 on flat regions, and within -255 to 255.

    Returns
    -------
    tuple of tuple of float, or None
        ``size_px`` rows of ``size_px`` weights, for correlation; None if the wave is zero or constant at every pixel.

    Notes
    -----
    The wave is that of ``cv2.getGaborKernel`` (Gabor 1946, Daugman 1985), minus a multiple of the Gaussian that makes
    the sum zero; without that the parameters of the first report (5, 1, 0, 1, 0.5, 0) sum to 9.88.
    """
    cosine, sine = math.cos(math.radians(theta_deg)), math.sin(math.radians(theta_deg))
    # From plus to minus: OpenCV's kernels are rotated by 180 degrees.
    offsets = range(size_px // 2, -(size_px // 2) - 1, -1)
    along_and_across = [(x * cosine + y * sine, y * cosine - x * sine) for y in offsets for x in offsets]
    envelope = [math.exp(-(u * u + gamma * gamma * v * v) / (2 * sigma_px * sigma_px)) for u, v in along_and_across]
    phases = [2 * math.pi * u / lambda_px + math.radians(psi_deg) for u, _ in along_and_across]
    wave = [weight * math.cos(phase) for weight, phase in zip(envelope, phases, strict=True)]
    total = math.fsum(envelope)
    excess = math.fsum(wave) / total
    weights = [value - excess * weight for value, weight in zip(wave, envelope, strict=True)]
    positive = math.fsum(max(weight, 0.0) for weight in weights)
    if positive < _MIN_SHARE * total:
        return None
    rows = (weights[start : start + size_px] for start in range(0, len(weights), size_px))
    return tuple(tuple(weight / positive for weight in row) for row in rows)
