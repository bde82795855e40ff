"""Generated cells for tests and first steps: images of 450x450 px, of two classes like C-NMC 2019, or of more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from leukemia_data.records.record import CELL_CLASSES

FRAME_PX = 450
CELLS_PER_PHOTO = 5
_ALL = CELL_CLASSES.index("all")
# Independent random streams of subjects, photographs and cells.
_SUBJECT_STREAM, _PHOTO_STREAM, _CELL_STREAM = 1, 2, 3

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]

# Fraction of the frame that a cell covers: 10 to 22 % for real cells, with a margin for the outline's pixels.
_MIN_COVERAGE = 0.105
_COVERAGE_RANGE = 0.108
# Measured change of log intensity (R, G, B) with chromatin and towards the outline.
_CHROMATIN_RGB = np.array([0.85, 1.0, 0.45], np.float32)
_RIM_RGB = np.array([0.46, 1.05, 0.34], np.float32)
_RIM_DECAY_PX = 5.5
# (scale in pixels, standard deviation of log intensity): the spectrum of both classes.
_OCTAVES = ((3.0, 0.032), (7.0, 0.034), (18.0, 0.055), (45.0, 0.10))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassAppearance:
    """Common properties of one class's cells.

    Parameters
    ----------
    size_logit, size_spread
        Mean and standard deviation of the logit of the coverage within its allowed range.
    core_rgb
        Usual colour of the nucleus, grey levels.
    roughness
        Median amplitude of the outline's irregularity, as a fraction of the radius.
    min_aspect
        Smallest ratio of the short to the long axis.
    chromatin_px
        Smallest and largest scale of the chromatin pattern, pixels.
    chromatin_contrast
        Median amplitude of that pattern, in log intensity.
    nucleoli_rate
        Mean number of pale spots.
    crescent_px
        Greatest extra width of the cytoplasm on one side, pixels.
    """

    size_logit: float
    size_spread: float
    core_rgb: tuple[float, float, float]
    roughness: float
    min_aspect: float
    chromatin_px: tuple[float, float]
    chromatin_contrast: float
    nucleoli_rate: float
    crescent_px: float


LYMPHOBLAST = ClassAppearance(
    size_logit=0.75,
    size_spread=0.95,
    core_rgb=(69.0, 28.0, 79.0),
    roughness=0.042,
    min_aspect=0.78,
    chromatin_px=(4.0, 9.0),
    chromatin_contrast=0.085,
    nucleoli_rate=3.2,
    crescent_px=5.0,
)
LYMPHOCYTE = ClassAppearance(
    size_logit=-1.0,
    size_spread=0.95,
    core_rgb=(61.0, 24.5, 73.0),
    roughness=0.018,
    min_aspect=0.80,
    chromatin_px=(7.0, 16.0),
    chromatin_contrast=0.10,
    nucleoli_rate=1.2,
    crescent_px=8.0,
)


def appearance(label: int, num_classes: int) -> ClassAppearance:
    """Return how the cells of a class look: of two classes like C-NMC's, of more in made-up kinds.

    Neighbours among many kinds have other colours; sizes and patterns change in other orders, so that no property alone
    tells the kinds apart.
    """
    if num_classes == len(CELL_CLASSES):
        return LYMPHOBLAST if label == _ALL else LYMPHOCYTE
    hue, size, pattern = (((label * step) % num_classes) / (num_classes - 1) for step in _steps(num_classes))
    return ClassAppearance(
        size_logit=-1.8 + 3.6 * size,
        size_spread=0.5,
        core_rgb=(48.0 + 70.0 * hue, 26.0 + 20.0 * pattern, 96.0 - 42.0 * hue),
        roughness=0.015 + 0.03 * (1.0 - pattern),
        min_aspect=0.72 + 0.2 * size,
        chromatin_px=(3.0 + 7.0 * pattern, 7.0 + 12.0 * pattern),
        chromatin_contrast=0.07 + 0.08 * (1.0 - hue),
        nucleoli_rate=0.5 + 4.0 * pattern,
        crescent_px=3.0 + 9.0 * (1.0 - size),
    )


def _steps(num_classes: int) -> tuple[int, int, int]:
    """Return 1 and two other numbers without a common divisor with `num_classes`, by which all classes are visited."""
    coprime = [step for step in range(1, num_classes) if math.gcd(step, num_classes) == 1]
    return 1, coprime[len(coprime) // 3], coprime[2 * len(coprime) // 3]


@dataclass(frozen=True, kw_only=True, slots=True)
class SubjectAppearance:
    """Common properties of one subject's photographs.

    Parameters
    ----------
    light_rgb
        Change of log intensity per channel by stain batch and lamp.
    stain_strength
        Factor of the contrast of chromatin and rim; 1 is usual.
    size_shift
        Change of the logit of the coverage: some people have larger cells.
    """

    light_rgb: tuple[float, float, float]
    stain_strength: float
    size_shift: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoAppearance:
    """Common properties of one photograph's cells.

    Parameters
    ----------
    light_rgb
        Change of log intensity per channel, in addition to the subject's.
    focus_px
        Standard deviation of the blur by defocus, pixels.
    fringe_xy
        Strength and direction of the colour fringe at the outline (lateral chromatic aberration).
    """

    light_rgb: tuple[float, float, float]
    focus_px: float
    fringe_xy: tuple[float, float]


def _draw_subject(rng: np.random.Generator) -> SubjectAppearance:
    """Spread of brightness about 8 %, of each channel about 4 %."""
    return SubjectAppearance(
        light_rgb=_draw_light(rng, common=0.075, per_channel=0.035),
        stain_strength=float(rng.lognormal(0.0, 0.12)),
        size_shift=float(rng.normal(0.0, 0.3)),
    )


def _draw_photo(rng: np.random.Generator) -> PhotoAppearance:
    fringe_x, fringe_y = rng.normal(0.0, 0.07, 2).tolist()
    return PhotoAppearance(
        light_rgb=_draw_light(rng, common=0.03, per_channel=0.012),
        focus_px=float(rng.uniform(0.6, 2.2)),
        fringe_xy=(fringe_x, fringe_y),
    )


def _draw_light(rng: np.random.Generator, common: float, per_channel: float) -> tuple[float, float, float]:
    red, green, blue = rng.normal(0.0, common) + rng.normal(0.0, per_channel, 3)
    return float(red), float(green), float(blue)


def _draw_outline(rng: np.random.Generator, kind: ClassAppearance, size_shift: float) -> Float64Array:
    """Closed outline as (x, y) in frame coordinates, scaled to a drawn area."""
    angle = np.linspace(0.0, 2.0 * np.pi, 256, endpoint=False)
    radius = 1.0 + _draw_bumps(rng, angle, kind.roughness)[:, None]
    points = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[:, 1] *= rng.uniform(kind.min_aspect, 1.0)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    points = points @ np.array([[cos, sin], [-sin, cos]])
    logit = kind.size_logit + size_shift + rng.normal(0.0, kind.size_spread)
    coverage = _MIN_COVERAGE + _COVERAGE_RANGE / (1.0 + math.exp(-logit))
    points *= math.sqrt(coverage * FRAME_PX**2 / cv2.contourArea(points.astype(np.float32)))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2.0
    centre = (FRAME_PX - 1) / 2.0 + np.clip(rng.normal(0.0, 3.0, 2), -9.0, 9.0)
    return cast("Float64Array", points - middle + centre)


def _draw_bumps(rng: np.random.Generator, angle: Float64Array, roughness: float) -> Float64Array:
    """Relative change of the radius: broad lobes, and fine teeth as of a rough segmentation."""
    waves = np.concatenate([np.arange(2, 8), rng.integers(9, 45, 14)])
    fine_fraction = 0.15 * rng.lognormal(0.0, 0.7)
    amplitude = np.where(waves < 8, 2.8 / waves**1.3, min(fine_fraction, 0.3) * 9.0 / waves)
    amplitude = amplitude * min(roughness * rng.lognormal(0.0, 0.4), 0.07)
    coefficients = amplitude * rng.normal(0.0, 1.0, waves.size).clip(-2.0, 2.0)
    phase = rng.uniform(0.0, 2.0 * np.pi, waves.size)
    return cast("Float64Array", np.cos(np.outer(angle, waves) + phase) @ coefficients)


def _rasterize(points: Float64Array, shape: tuple[int, int]) -> FloatArray:
    """Fraction of each pixel inside the polygon; slivers count as outside, as in a segmented image."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16.0).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    alpha = mask.astype(np.float32) / 255.0
    return np.where(alpha < 0.1, np.float32(0.0), alpha)


def _paint(
    rng: np.random.Generator,
    alpha: FloatArray,
    kind: ClassAppearance,
    subject: SubjectAppearance,
    photo: PhotoAppearance,
) -> NDArray[np.uint8]:
    """Colours of the window around the cell, 0 outside."""
    height, width = alpha.shape
    inside = alpha > 0.0
    depth = cast("FloatArray", cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5))
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    rim = _draw_rim(rng, depth, x, y, kind.crescent_px)
    texture = _draw_texture(rng, (height, width), kind) * (1.0 - 0.6 * rim)
    texture = cv2.GaussianBlur(texture, (0, 0), photo.focus_px)
    fringe = rim * (photo.fringe_xy[0] * x + photo.fringe_xy[1] * y)
    light = np.log(kind.core_rgb) + subject.light_rgb + photo.light_rgb + rng.normal(0.0, 0.03)
    log_image = np.empty((height, width, 3), np.float32)
    for channel, fringe_sign in enumerate((1.0, 0.0, -1.0)):
        log_image[..., channel] = (
            np.float32(light[channel])
            + np.float32(subject.stain_strength) * _CHROMATIN_RGB[channel] * texture
            + np.float32(subject.stain_strength) * _RIM_RGB[channel] * rim
            + np.float32(fringe_sign) * fringe
        )
    image = cv2.exp(log_image) + _draw_sensor_noise(rng, (height, width))
    image = np.clip(np.rint(image * alpha[..., None]), 1.0, 255.0)
    return cast("NDArray[np.uint8]", (image * inside[..., None]).astype(np.uint8))


def _draw_rim(
    rng: np.random.Generator, depth: FloatArray, x: FloatArray, y: FloatArray, crescent_px: float
) -> FloatArray:
    """Cytoplasm: 1 at the outline, falling inwards, wider on one side and uneven elsewhere."""
    direction = rng.uniform(0.0, 2.0 * np.pi)
    side = np.float32(math.cos(direction)) * x + np.float32(math.sin(direction)) * y
    width_px = np.float32(crescent_px * rng.beta(1.0, 2.5)) * np.clip(side, 0.0, 1.0) ** 2
    width_px = width_px + np.float32(1.2) * _smooth_noise(rng, depth.shape, 30.0)
    decay_px = np.float32(_RIM_DECAY_PX * rng.lognormal(0.0, 0.15))
    return cast("FloatArray", np.exp(-np.maximum(depth - width_px, np.float32(0.0)) / decay_px))


def _draw_texture(rng: np.random.Generator, shape: tuple[int, int], kind: ClassAppearance) -> FloatArray:
    """Chromatin and nucleoli as a change of log intensity, mean about 0, positive if paler."""
    texture = np.zeros(shape, np.float32)
    for scale_px, deviation in _OCTAVES:
        texture += np.float32(deviation * rng.lognormal(0.0, 0.2)) * _smooth_noise(rng, shape, scale_px)
    chromatin = _smooth_noise(rng, shape, rng.uniform(*kind.chromatin_px))
    contrast = kind.chromatin_contrast * rng.lognormal(0.0, 0.3)
    texture += np.float32(contrast) * np.tanh(np.float32(1.3) * chromatin)
    for _ in range(min(int(rng.poisson(kind.nucleoli_rate)), 8)):
        texture += _draw_nucleolus(rng, shape)
    return texture


def _draw_nucleolus(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """One pale round spot in the inner part of the window."""
    sigma_px = rng.uniform(2.0, 7.0)
    height = np.float32(rng.uniform(0.15, 0.55))
    distance = 0.66 * math.sqrt(rng.uniform())
    direction = rng.uniform(0.0, 2.0 * np.pi)
    profiles = []
    for size, offset in zip(shape, (math.sin(direction), math.cos(direction)), strict=True):
        position = np.arange(size, dtype=np.float32) - np.float32(size * (0.5 + 0.5 * distance * offset))
        profiles.append(np.exp(-0.5 * (position / np.float32(sigma_px)) ** 2))
    return cast("FloatArray", height * np.outer(profiles[0], profiles[1]))


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> FloatArray:
    """Gaussian noise of about unit variance with details of `scale_px`, drawn on a coarse grid."""
    grid_height, grid_width = (math.ceil(2.0 * size / scale_px) + 2 for size in shape)
    grid = rng.standard_normal((grid_height, grid_width), dtype=np.float32)
    # 3.545 = 2 sqrt(pi) restores unit variance after a Gaussian of sigma 1.
    grid = cv2.GaussianBlur(grid, (0, 0), 1.0) * np.float32(3.545)
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def _draw_sensor_noise(rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Soft colour noise of about one grey level: sensors interpolate colour from every second pixel."""
    height, width = shape
    grid = np.float32(1.7) * rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def generate_cell(
    seed: int, subject_number: int, cell_index: int, label: int, num_classes: int = len(CELL_CLASSES)
) -> NDArray[np.uint8]:
    """Generate one image.

    Parameters
    ----------
    seed
        Chooses the sample; not negative.
    subject_number
        From 1 in each class.
    cell_index
        From 0. Each run of 5 cells comes from one photograph.
    label
        Of two classes 0 normal lymphocyte (hem), 1 lymphoblast (all); of more 0 to ``num_classes - 1``.
    num_classes
        See :func:`appearance`.

    Returns
    -------
    ndarray of uint8, shape (450, 450, 3)
        RGB. All channels are 0 outside the cell and at least 1 inside; the cell covers 10 to 22 % of the frame, near
        its centre.
    """
    photo = cell_index // CELLS_PER_PHOTO
    rng = _generator(seed, _CELL_STREAM, label, subject_number, cell_index)
    kind = appearance(label, num_classes)
    subject = _draw_subject(_generator(seed, _SUBJECT_STREAM, label, subject_number, 0))
    outline_xy = _draw_outline(rng, kind, subject.size_shift)
    left, top = np.floor(outline_xy.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(outline_xy.max(axis=0)).astype(int) + 2
    alpha = _rasterize(outline_xy - (left, top), (bottom - top, right - left))
    frame = np.zeros((FRAME_PX, FRAME_PX, 3), np.uint8)
    frame[top:bottom, left:right] = _paint(
        rng, alpha, kind, subject, _draw_photo(_generator(seed, _PHOTO_STREAM, label, subject_number, photo))
    )
    return frame


def _generator(seed: int, stream: int, label: int, subject_number: int, index: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, label, subject_number, index))
    return np.random.Generator(np.random.Philox(sequence))
