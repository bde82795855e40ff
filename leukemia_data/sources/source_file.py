"""One source file: its bytes and its state at the moment it was read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import ImageError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The bytes of a file, with its size and modification time as they were when it was opened."""

    data: NDArray[np.uint8]
    size_bytes: int
    mtime_ns: int


def read_file(path: Path) -> SourceFile:
    """Read a whole file.

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
    return SourceFile(data, status.st_size, status.st_mtime_ns)
