"""Checks that the operations of a recipe share."""

from __future__ import annotations

from leukemia_data.errors import UsageError

MAX_SIDE_PX = 4096
MAX_KERNEL_PX = 63


def require(condition: bool, message: str) -> None:
    """Raise UsageError unless the condition holds."""
    if not condition:
        raise UsageError(message)


def require_side(name: str, side_px: int) -> None:
    """Raise UsageError unless a side in pixels is one that a frame can have."""
    require(1 <= side_px <= MAX_SIDE_PX, f"{name} must lie in 1..{MAX_SIDE_PX}, got {side_px}")


def require_kernel(op: str, size_px: int) -> None:
    """Raise UsageError unless a filter's size is odd, so that it has a middle, and no larger than useful."""
    is_fit = 3 <= size_px <= MAX_KERNEL_PX and size_px % 2 == 1
    require(is_fit, f"{op}: size_px must be an odd number in 3..{MAX_KERNEL_PX}, got {size_px}")


def require_room(op: str, size_px: int, side_px: int) -> None:
    """Raise UsageError unless a filter of this size fits into a square of this side."""
    require(size_px <= side_px, f"{op}: size_px {size_px} is too wide for {side_px} px")


def require_tiles(op: str, clip_limit: float, tiles: int) -> None:
    """Raise UsageError unless the numbers are ones that CLAHE takes."""
    require(0 < clip_limit <= 256, f"{op}: clip_limit must lie in (0, 256], got {clip_limit}")
    require(1 <= tiles <= 64, f"{op}: tiles must lie in 1..64, got {tiles}")


def require_tile_room(op: str, tiles: int, side_px: int) -> None:
    """Raise UsageError unless every tile of a square of this side has more than one pixel a side."""
    require(side_px >= 2 * tiles, f"{op}: {tiles} tiles need more than {side_px} px")
