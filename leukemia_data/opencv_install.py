"""Which distributions of OpenCV are installed: two of them write to the same folder ``cv2``."""

import sys
from collections.abc import Sequence
from importlib.metadata import distributions

DISTRIBUTIONS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def installed_opencv_distributions(path: Sequence[str] | None = None) -> list[str]:
    """Names and versions of the installed distributions that hold OpenCV, looked for on `path` or ``sys.path``."""
    folders = list(sys.path if path is None else path)
    found = [next(iter(distributions(name=name, path=folders)), None) for name in DISTRIBUTIONS]
    return [f"{name} {one.version}" for name, one in zip(DISTRIBUTIONS, found, strict=True) if one is not None]


def opencv_conflict(path: Sequence[str] | None = None) -> str | None:
    """Return a warning if several distributions of OpenCV are installed, else None."""
    found = installed_opencv_distributions(path)
    if len(found) < 2:
        return None
    return (
        f"several distributions of OpenCV are installed ({', '.join(found)}); they overwrite each other's files, so "
        "which one runs is chance: pip uninstall all of them, then pip install opencv-python-headless"
    )
