"""A step of a recipe and the window of pixels it needs in, changed pixels of the same window out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from leukemia_data.pixels.filters import add_response, balance_gray_world, high_pass, mean_filter, to_gray
from leukemia_data.pixels.image_ops import (
    Image,
    equalize_cell_lightness,
    equalize_channels,
    equalize_lightness,
    unsharp_mask,
)
from leukemia_data.pixels.stain import normalize_macenko, normalize_reinhard
from leukemia_data.recipes.operations import (
    ClaheLab,
    ClaheLightness,
    Equalization,
    Gabor,
    Gray,
    GrayWorld,
    HighPass,
    MeanFilter,
    StainMacenko,
    StainReinhard,
    Unsharp,
)

SameSize = Unsharp | GrayWorld | Gray | StainMacenko | StainReinhard | MeanFilter | HighPass | Gabor


def equalize(step: Equalization, pixels: Image, tiles: tuple[int, int]) -> Image:
    """CLAHE of whole tiles: how many the window holds (vertically, horizontally) is told by `tiles`."""
    match step:
        case ClaheLab():
            return equalize_cell_lightness(pixels, step.clip_limit, tiles)
        case ClaheLightness():
            return equalize_lightness(pixels, step.clip_limit, tiles)
        case _:
            return equalize_channels(pixels, step.clip_limit, tiles)


def change_pixels(step: SameSize, pixels: Image) -> Image:
    """Run a step that leaves the frame's size: (H, W, 3) uint8 -> (H, W, 3) uint8."""
    match step:
        case Unsharp(sigma_px=sigma_px, strength=strength, radius_px=radius_px):
            return unsharp_mask(pixels, sigma_px, strength, radius_px)
        case MeanFilter(size_px=size_px):
            return mean_filter(pixels, size_px)
        case HighPass(size_px=size_px):
            return high_pass(pixels, size_px)
        case Gabor(base=base):
            return add_response(pixels, _gabor_kernel(step), onto_grey=base == "gray")
        case GrayWorld():
            return balance_gray_world(pixels)
        case Gray():
            return to_gray(pixels)
        case StainMacenko():
            return _normalize_macenko(step, pixels)
        case StainReinhard(mean_lab=mean_lab, std_lab=std_lab):
            return normalize_reinhard(pixels, mean_lab, std_lab)


def _normalize_macenko(step: StainMacenko, pixels: Image) -> Image:
    stains_SC = np.array([step.blue_stain, step.pink_stain])
    strengths_S = (step.blue_strength, step.pink_strength)
    return normalize_macenko(pixels, stains_SC, strengths_S, step.percentile, step.min_density)


@lru_cache(maxsize=16)
def _gabor_kernel(step: Gabor) -> NDArray[np.float64]:
    return np.array(step.weights())
