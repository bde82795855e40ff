"""One source file: its bytes and its state at the moment it was read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError


def read_file(path: Path) -> tuple[NDArray[np.uint8], int, int]:
    """Read a whole file: its bytes, size and modification time (ns) as they were when it was opened.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = np.fromfile(file, np.uint8)
    except (OSError, ValueError) as error:
        reason = "the file is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise ImageError(reason) from error
    return data, status.st_size, status.st_mtime_ns
