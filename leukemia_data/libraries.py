"""NumPy, OpenCV and torch, loaded when something of them is first used.

A value such as a recipe's operation stands in one module with what it does to pixels, and a command that only compares
or prints values loads no library of the work: ``ldata build`` with nothing to do takes 0.2 s, importing torch a second.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library(ModuleType):
    """Stands for a module, which is imported when an attribute of it is first asked for."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import cv2
    import numpy as np
    import torch
else:
    cv2, np, torch = map(Library, ("cv2", "numpy", "torch"))

__all__ = ["Library", "cv2", "np", "torch"]
