"""Operations on colour: gray-world balance, grey, and the two stain normalisations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from leukemia_data.errors import require
from leukemia_data.lazy_imports import cv2, np
from leukemia_data.operations.operation import OPERATIONS, Image, Operation

if TYPE_CHECKING:
    from numpy.typing import NDArray


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class GrayWorld(Operation):
    """Scale each channel to the mean of the three channels' means, rounded and saturated.

    An image with an empty channel is returned unchanged.

    Notes
    -----
    Buchsbaum, "A spatial processor model for object colour perception", J. Franklin Institute 310 (1980).
    """

    op: ClassVar[str] = "gray_world"
    keeps_the_background: ClassVar[bool] = True

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        sums_C = image_HWC.reshape(-1, 3).sum(axis=0, dtype=np.float64)
        if not sums_C.all():
            return image_HWC.copy()
        levels = np.arange(256)[:, None] * (sums_C.mean() / sums_C)
        table = np.rint(levels).clip(0, 255).astype(np.uint8)
        return np.asarray(cv2.LUT(image_HWC, table[:, None]), np.uint8)


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class Gray(Operation):
    """Luma of Rec. 601 (0.299 R + 0.587 G + 0.114 B) in three equal channels."""

    op: ClassVar[str] = "gray"
    keeps_the_background: ClassVar[bool] = True

    @property
    def reach_px(self) -> int:
        """See :attr:`Operation.reach_px`."""
        return 0

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        luma_HW = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
        return np.asarray(cv2.merge([luma_HW] * 3), np.uint8)


def cell_mask(image_HWC: Image) -> Image:
    """Return 255 where any channel is above zero, 0 where a pixel is exactly black: (H, W, 3) -> (H, W), uint8."""
    return np.asarray(cv2.bitwise_not(cv2.inRange(image_HWC, (0, 0, 0), (0, 0, 0))), np.uint8)


FloatArray: TypeAlias = "NDArray[np.float64]"

_MIN_PIXELS = 100
# Noise of two grey levels on one dark colour spans up to five degrees; cells of C-NMC span 7 to 17.
_MIN_SINE = 0.087
_MIN_CONCENTRATION = 1e-3
# Rounding to grey levels gives a colourless image about a tenth of this in a* and b*.
_MIN_SPREAD = 0.25


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class StainMacenko(Operation):
    """Normalise the two stains of the cell to reference colours and strengths; no change where they are not found.

    Parameters
    ----------
    blue_stain, pink_stain
        Reference directions: optical density in R, G, B, of length one; the blue one absorbs more red.
    blue_strength, pink_strength
        Reference 99th percentiles of the stains' concentrations (decimal optical density).
    percentile, min_density
        As for :func:`estimate_stains`.

    Notes
    -----
    Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.
    """

    op: ClassVar[str] = "stain_macenko"
    finds_the_cell: ClassVar[bool] = True
    keeps_the_background: ClassVar[bool] = True
    blue_stain: tuple[float, float, float] = (0.547, 0.656, 0.520)
    pink_stain: tuple[float, float, float] = (0.456, 0.795, 0.399)
    blue_strength: float = 1.63
    pink_strength: float = 1.31
    percentile: float = 1.0
    min_density: float = 0.15

    def __post_init__(self) -> None:
        for name, stain in (("blue_stain", self.blue_stain), ("pink_stain", self.pink_stain)):
            is_density = all(0 <= density <= 1 for density in stain) and abs(math.hypot(*stain) - 1) <= 0.01
            require(is_density, f"stain_macenko: {name} must be three densities from 0 to 1 of length 1, got {stain}")
        require(
            self.blue_stain[0] > self.pink_stain[0],
            "stain_macenko: blue_stain must absorb more red (its first number) than pink_stain",
        )
        for name, strength in (("blue_strength", self.blue_strength), ("pink_strength", self.pink_strength)):
            require(0 < strength <= 10, f"stain_macenko: {name} must lie in (0, 10], got {strength}")
        require(0 <= self.percentile <= 25, f"stain_macenko: percentile must lie in [0, 25], got {self.percentile}")
        require(0 <= self.min_density <= 1, f"stain_macenko: min_density must lie in [0, 1], got {self.min_density}")

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        is_cell = cell_mask(image_HWC) > 0
        # One is added to grey levels, so that black has a finite density.
        densities_NC = np.log10(256 / np.arange(1, 257))[image_HWC[is_cell]]
        estimate = estimate_stains(densities_NC, self.percentile, self.min_density)
        result = image_HWC.copy()
        if estimate is None:
            return result
        own_SC, own_S = estimate
        strengths_S = np.array([self.blue_strength, self.pink_strength])
        mixing_CC = np.linalg.pinv(own_SC) * (strengths_S / own_S) @ np.array([self.blue_stain, self.pink_stain])
        result[is_cell] = np.rint(256 * 10 ** -(densities_NC @ mixing_CC) - 1).clip(0, 255)
        return result


@OPERATIONS.register
@dataclass(frozen=True, slots=True, kw_only=True)
class StainReinhard(Operation):
    """Give the cell's L*, a* and b* a reference mean and standard deviation; no change where one is constant.

    Notes
    -----
    Reinhard et al., "Color transfer between images", IEEE Computer Graphics and Applications 21(5), 2001, in CIE
    L*a*b* (D65) instead of l-alpha-beta, as usual in histology. Colours outside sRGB are clipped.
    """

    op: ClassVar[str] = "stain_reinhard"
    finds_the_cell: ClassVar[bool] = True
    keeps_the_background: ClassVar[bool] = True
    mean_lab: tuple[float, float, float] = (19.3, 27.5, -22.4)
    std_lab: tuple[float, float, float] = (4.32, 3.58, 3.57)

    def __post_init__(self) -> None:
        lightness, *colours = self.mean_lab
        is_colour = 0 <= lightness <= 100 and all(-128 <= colour <= 128 for colour in colours)
        require(
            is_colour, f"stain_reinhard: mean_lab must be L* in 0..100, a* and b* in -128..128, got {self.mean_lab}"
        )
        is_spread = all(0 < spread <= 100 for spread in self.std_lab)
        require(is_spread, f"stain_reinhard: std_lab must be three numbers in (0, 100], got {self.std_lab}")

    def change(self, image_HWC: Image) -> Image:
        """See :meth:`Operation.change`."""
        is_cell = cell_mask(image_HWC) > 0
        result = image_HWC.copy()
        if np.count_nonzero(is_cell) < _MIN_PIXELS:
            return result
        lab_NC = lab_of(image_HWC[is_cell])
        spread_C = lab_NC.std(axis=0)
        if spread_C.min() < _MIN_SPREAD:
            return result
        scaled_NC = (lab_NC - lab_NC.mean(axis=0)) * (np.array(self.std_lab) / spread_C) + np.array(self.mean_lab)
        rgb_N1C = cv2.cvtColor(scaled_NC.astype(np.float32)[:, None], cv2.COLOR_Lab2RGB)
        result[is_cell] = np.rint(rgb_N1C[:, 0] * 255).clip(0, 255)
        return result


def estimate_stains(
    densities_NC: FloatArray, percentile: float, min_density: float
) -> tuple[FloatArray, FloatArray] | None:
    """Estimate the directions and strengths of the two stains of a cell.

    Parameters
    ----------
    densities_NC : ndarray of shape (N, 3), float64
        Optical densities (decimal logarithm) of the cell's pixels.
    percentile
        Percentile of the angles at which the two stains are taken.
    min_density
        Pixels with a channel below it are nearly clear and ignored.

    Returns
    -------
    tuple of ndarray of shape (2, 3) and ndarray of shape (2,), or None
        Unit vectors, the one that absorbs more red first, and the 99th percentiles of their concentrations; None if
        the pixels do not show two stains.

    Notes
    -----
    The plane is that of the two largest singular values of the densities, as in the paper. With that of the covariance,
    as in several implementations, the stains of 359 cells of C-NMC vary 1.1 to 3.2 times as much.
    """
    counted_NC = densities_NC[densities_NC.min(axis=1) >= min_density]
    if len(counted_NC) < _MIN_PIXELS:
        return None
    plane_CP = np.linalg.eigh(counted_NC.T @ counted_NC)[1][:, :0:-1]
    # Densities and the main direction are positive, so that no angle is near the jump at 180 degrees.
    plane_CP = plane_CP * np.where(plane_CP.sum(axis=0) < 0, -1, 1)
    projected_NP = counted_NC @ plane_CP
    angles_N = np.arctan2(projected_NP[:, 1], projected_NP[:, 0])
    low, high = np.percentile(angles_N, [percentile, 100 - percentile])
    if np.sin(high - low) < _MIN_SINE:
        return None
    stains_SC = np.array([[np.cos(low), np.sin(low)], [np.cos(high), np.sin(high)]]) @ plane_CP.T
    stains_SC = stains_SC[np.argsort(-stains_SC[:, 0])]
    strengths_S = np.percentile(counted_NC @ np.linalg.pinv(stains_SC), 99, axis=0)
    return (stains_SC, strengths_S) if strengths_S.min() > _MIN_CONCENTRATION else None


def lab_of(pixels_NC: Image) -> FloatArray:
    """Convert sRGB pixels, (N, 3) uint8, to CIE L*a*b* (D65), (N, 3) float64, L* in 0..100."""
    return np.asarray(cv2.cvtColor(pixels_NC[:, None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0], np.float64)
