"""Identity of a decoded frame: equal pixels have equal digests whatever the file format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leukemia_data.samples.fingerprint import bytes_digest


def frame_digest(image_HWC: NDArray[np.uint8]) -> bytes:
    """Digest of a frame's shape and pixels, 16 bytes: what a cache's ``pixel_digests`` hold.

    Parameters
    ----------
    image_HWC : ndarray of shape (height, width, 3), uint8
        RGB, as decoded.
    """
    shape = np.array(image_HWC.shape, "<i8").tobytes()
    return bytes_digest(shape + bytes_digest(np.ascontiguousarray(image_HWC)))
