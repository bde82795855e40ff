"""Weights of a Gabor filter that neither brightens nor darkens. Plain Python: recipes are checked without NumPy."""

from __future__ import annotations

import math
from itertools import chain

Rows = tuple[tuple[float, ...], ...]

_MIN_SHARE = 1e-6


def gabor_weights(
    size_px: int, sigma_px: float, theta_deg: float, lambda_px: float, gamma: float, psi_deg: float
) -> Rows | None:
    """Kernel whose weights sum to zero, the positive ones to one and the negative ones to minus one.

    Its response is thus the mean of the pixels under the bright stripes minus the mean of those under the dark ones:
    0 on flat parts, and never beyond -255 to 255.

    Returns
    -------
    tuple of tuple of float, or None
        ``size_px`` rows of ``size_px`` weights, for correlation; None where the wave is zero or constant at every
        pixel, so that no response is left.

    Notes
    -----
    The wave under the Gaussian is that of ``cv2.getGaborKernel`` (Gabor 1946, Daugman 1985). As much of the Gaussian
    is taken off as makes the sum zero; without that the sum depends on the numbers: with those of the first report
    (5, 1, 0, 1, 0.5, 0) it is 9.88, which only overexposes the image.
    """
    waves, envelopes = _wave_and_envelope(size_px, sigma_px, theta_deg, lambda_px, gamma, psi_deg)
    total = math.fsum(chain.from_iterable(envelopes))
    excess = math.fsum(chain.from_iterable(waves)) / total
    weights = [
        [wave - excess * envelope for wave, envelope in zip(*rows, strict=True)]
        for rows in zip(waves, envelopes, strict=True)
    ]
    positive = math.fsum(max(weight, 0.0) for weight in chain.from_iterable(weights))
    if positive < _MIN_SHARE * total:
        return None
    return tuple(tuple(weight / positive for weight in row) for row in weights)


def _wave_and_envelope(
    size_px: int, sigma_px: float, theta_deg: float, lambda_px: float, gamma: float, psi_deg: float
) -> tuple[list[list[float]], list[list[float]]]:
    """The Gaussian times the cosine, and the Gaussian alone, row by row."""
    cosine, sine = math.cos(math.radians(theta_deg)), math.sin(math.radians(theta_deg))
    # From plus to minus: OpenCV's kernels are written turned by 180 degrees.
    offsets = range(size_px // 2, -(size_px // 2) - 1, -1)
    waves, envelopes = [], []
    for y in offsets:
        along = [x * cosine + y * sine for x in offsets]
        across = [y * cosine - x * sine for x in offsets]
        envelope = [
            math.exp(-(u * u + gamma * gamma * v * v) / (2 * sigma_px * sigma_px))
            for u, v in zip(along, across, strict=True)
        ]
        phases = [2 * math.pi * u / lambda_px + math.radians(psi_deg) for u in along]
        waves.append([weight * math.cos(phase) for weight, phase in zip(envelope, phases, strict=True)])
        envelopes.append(envelope)
    return waves, envelopes
