"""Names and libraries that are imported when they are first used (PEP 562).

A module of an operation, with its parameters and pixels, loads NumPy, OpenCV or torch when it works on pixels:
``ldata build`` with nothing to do takes 0.2 s, importing torch 1 s. Trainings begin without
pandas, which they need when they evaluate.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

NO_NAMES: Mapping[str, str] = {}


def lazy_names(
    module: str, targets: Mapping[str, str], renamed: Mapping[str, str] = NO_NAMES
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a module's ``__getattr__`` and ``__dir__``.

    Parameters
    ----------
    module
        The module's own name.
    targets
        The place of each of its names: ``module:attribute``, or ``module`` for a module.
    renamed
        Earlier names with those to use now, which the AttributeError says.
    """

    def __getattr__(name: str) -> object:
        if name in renamed:
            raise AttributeError(f"{module}.{name} is {renamed[name]} now")
        if name not in targets:
            # With name and obj, Python suggests a similar name.
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])
        place, _, attribute = targets[name].partition(":")
        found = importlib.import_module(place)
        return attrgetter(attribute)(found) if attribute else found

    def __dir__() -> list[str]:
        return sorted(targets)

    return __getattr__, __dir__


class Library(ModuleType):
    """A module that is imported when its first attribute is used."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import cv2
    import numpy as np
    import pandas as pd
    import torch
else:
    cv2, np, pd, torch = map(Library, ("cv2", "numpy", "pandas", "torch"))

__all__ = ["NO_NAMES", "Library", "cv2", "lazy_names", "np", "pd", "torch"]
