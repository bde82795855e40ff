"""Operations on colour: gray-world balance, grey, and the two stain normalisations, as validated parameters.

The reference stains are facts measured for this project: means over every tenth of the 3,581 cells of fold 1 of
C-NMC 2019, which its makers had already stain-normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from leukemia_data.operations.checks import require


@dataclass(frozen=True, slots=True, kw_only=True)
class GrayWorld:
    """Scale each channel so that all three have the common mean; the black background cancels in the ratios."""

    op: ClassVar[str] = "gray_world"
    version: ClassVar[int] = 1

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Gray:
    """Luma of Rec. 601 (0.299 R + 0.587 G + 0.114 B) in three equal channels."""

    op: ClassVar[str] = "gray"
    version: ClassVar[int] = 1

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class StainMacenko:
    """Bring the two stains of the cell to reference colours and strengths (Macenko et al. 2009).

    Parameters
    ----------
    blue_stain, pink_stain
        Reference directions: optical density in R, G, B, of length one; the blue one absorbs more red.
    blue_strength, pink_strength
        Reference 99th percentiles of the stains' concentrations (decimal optical density).
    percentile
        How far from the extreme angles an image's own stains are taken, in percent.
    min_density
        Pixels with a channel below it are nearly clear and do not count in the estimate.
    """

    op: ClassVar[str] = "stain_macenko"
    version: ClassVar[int] = 1
    blue_stain: tuple[float, float, float] = (0.547, 0.656, 0.520)
    pink_stain: tuple[float, float, float] = (0.456, 0.795, 0.399)
    blue_strength: float = 1.63
    pink_strength: float = 1.31
    percentile: float = 1.0
    min_density: float = 0.15

    def __post_init__(self) -> None:
        for name, stain in (("blue_stain", self.blue_stain), ("pink_stain", self.pink_stain)):
            is_density = all(0 <= density <= 1 for density in stain) and abs(_length(stain) - 1) <= 0.01
            require(is_density, f"stain_macenko: {name} must be three densities from 0 to 1 of length 1, got {stain}")
        require(
            self.blue_stain[0] > self.pink_stain[0],
            "stain_macenko: blue_stain must absorb more red (its first number) than pink_stain",
        )
        for name, strength in (("blue_strength", self.blue_strength), ("pink_strength", self.pink_strength)):
            require(0 < strength <= 10, f"stain_macenko: {name} must lie in (0, 10], got {strength}")
        require(0 <= self.percentile <= 25, f"stain_macenko: percentile must lie in [0, 25], got {self.percentile}")
        require(0 <= self.min_density <= 1, f"stain_macenko: min_density must lie in [0, 1], got {self.min_density}")

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class StainReinhard:
    """Give the cell's L*, a* and b* a reference mean and standard deviation (Reinhard et al. 2001)."""

    op: ClassVar[str] = "stain_reinhard"
    version: ClassVar[int] = 1
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

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return side_px


def _length(vector: tuple[float, ...]) -> float:
    return math.hypot(*vector)
