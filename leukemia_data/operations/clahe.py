"""Operations that raise contrast: CLAHE, of the channels or of the lightness, and the unsharp mask, as parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leukemia_data.operations.checks import require, require_tile_room, require_tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalization:
    """What the forms of CLAHE have in common: tiles, and a limit of contrast (OpenCV's meaning of the numbers).

    ``clip_limit`` is a multiple of the mean bin height, ``tiles`` the number of tiles along each side.
    """

    op: ClassVar[str]
    clip_limit: float = 3.0
    tiles: int = 9

    def __post_init__(self) -> None:
        require_tiles(self.op, self.clip_limit, self.tiles)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        require_tile_room(self.op, self.tiles, side_px)
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Clahe(Equalization):
    """Contrast-limited adaptive histogram equalisation of each colour channel."""

    op: ClassVar[str] = "clahe"
    version: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheLab(Equalization):
    """CLAHE of the lightness alone (L of CIE L*a*b*); colour stays, and the black background stays black."""

    op: ClassVar[str] = "clahe_lab"
    version: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaheLightness(Equalization):
    """CLAHE of the lightness alone, of all pixels alike: no background is assumed, black is lifted like any level."""

    op: ClassVar[str] = "clahe_lightness"
    version: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsharp:
    """Unsharp mask: image * (1 + strength) - Gaussian(image, sigma) * strength, saturated to 0..255."""

    op: ClassVar[str] = "unsharp"
    version: ClassVar[int] = 1
    sigma_px: float = 3.0
    strength: float = 1.5

    def __post_init__(self) -> None:
        require(0.1 <= self.sigma_px <= 50, f"unsharp: sigma_px must lie in [0.1, 50], got {self.sigma_px}")
        require(0 < self.strength <= 20, f"unsharp: strength must lie in (0, 20], got {self.strength}")

    @property
    def radius_px(self) -> int:
        """Reach of the Gaussian kernel: three sigma, as OpenCV chooses it for 8-bit images."""
        return (round(6 * self.sigma_px + 1) | 1) // 2

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        require(side_px > self.radius_px, f"unsharp: sigma_px {self.sigma_px} is too wide for {side_px} px")
        return side_px
