"""Names of a module that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from operator import attrgetter

NO_NAMES: Mapping[str, str] = {}


def lazy_names(
    module: str, targets: Mapping[str, str], renamed: Mapping[str, str] = NO_NAMES
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return what a module takes for its ``__getattr__`` and its ``__dir__``.

    Parameters
    ----------
    module
        The module's own name.
    targets
        Where each of its names is: ``module:attribute``, or ``module`` for a module.
    renamed
        What there was earlier, with what to use now; using it raises AttributeError, which says so.
    """

    def __getattr__(name: str) -> object:
        if name in renamed:
            raise AttributeError(f"{module}.{name} is {renamed[name]} now")
        if name not in targets:
            # With the module, Python itself says what may have been meant.
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name, obj=sys.modules[module])
        place, _, attribute = targets[name].partition(":")
        found = importlib.import_module(place)
        return attrgetter(attribute)(found) if attribute else found

    def __dir__() -> list[str]:
        return sorted(targets)

    return __getattr__, __dir__
