"""Registries of what is chosen by name: operations, optimizers, networks, codecs, engines.

::

    OPERATIONS: Registry[type[Operation]] = Registry("operation", name_attribute="op")

    @OPERATIONS.register
    class Clahe(Operation):
        op = "clahe"

    NETWORKS: Registry[Callable[[int], nn.Module]] = Registry("model")
    NETWORKS.register(resnet18, name="resnet18")

    CODECS.lazy("zstd", "leukemia_data.caches.zstd_codec:ZSTD_CODEC", extra="zstd")

A custom module registers when it is imported. For programs that do not import it (the command line, workers of a
build), an installed package names it as an entry point, which is imported when a name is unknown::

    [project.entry-points.leukemia_cells]
    stains = "my_package.stains"
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Generic, TypeVar, cast

from leukemia_data.errors import UsageError

T = TypeVar("T")
ENTRY_POINTS = "leukemia_cells"
"""Group of the entry points that name modules to be imported."""


@dataclass(frozen=True, slots=True)
class _Lazy:
    """An entry in a module that is not imported yet, with the extra that installs its library."""

    target: str
    extra: str | None


class Registry(Generic[T]):
    """Entries of one kind by name, in the order of registration; reading is safe from many threads.

    Parameters
    ----------
    kind
        One word for messages, such as ``operation``.
    name_attribute
        The attribute of an entry that is its name.
    """

    def __init__(self, kind: str, *, name_attribute: str = "name") -> None:
        self.kind, self._name_attribute = kind, name_attribute
        self._entries: dict[str, T | _Lazy] = {}

    def register(self, thing: T, *, name: str | None = None) -> T:
        """Register an entry under `name`, or else its own name, and return it; also a decorator.

        Raises
        ------
        UsageError
            If another entry has the name. A class or function may be registered again, also if it is defined anew, as
            when a notebook's cell runs again.
        """
        key = cast(str, getattr(thing, self._name_attribute)) if name is None else name
        if not _is_same(self._entries.get(key, thing), thing):
            raise UsageError(f"{self.kind} {key!r} is there already: choose another name")
        self._entries[key] = thing
        return thing

    def lazy(self, name: str, target: str, *, extra: str | None = None) -> None:
        """Register an entry that is imported when it is first used, being slow to import or optional.

        Parameters
        ----------
        target
            Where it is, as ``module:attribute``.
        extra
            The extra of this project's package that installs its library.

        Raises
        ------
        UsageError
            If another entry has the name.
        """
        entry = _Lazy(target, extra)
        if self._entries.setdefault(name, entry) != entry:
            raise UsageError(f"{self.kind} {name!r} is there already: choose another name")

    def get(self, name: str) -> T:
        """Return the entry of a name; raises UsageError if there is none or its library is not installed."""
        entry = self._find(name)
        if entry is None:
            known = ", ".join(self) or "none"
            raise UsageError(f"unknown {self.kind} {name!r:.60}{did_you_mean(name, self)}; known are {known}")
        return self._imported(name, entry) if isinstance(entry, _Lazy) else entry

    def names(self) -> tuple[str, ...]:
        """Return all names, in the order of registration."""
        return tuple(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __repr__(self) -> str:
        return f"<Registry of {self.kind}: {', '.join(self)}>"

    @contextmanager
    def temporarily(self, name: str, thing: T) -> Iterator[T]:
        """Register an entry, or replace that of the same name, for the context; for tests."""
        replaced = self._entries.get(name)
        self._entries[name] = thing
        try:
            yield thing
        finally:
            if replaced is None:
                del self._entries[name]
            else:
                self._entries[name] = replaced

    def _find(self, name: object) -> T | _Lazy | None:
        # Names come from files, which may have anything instead.
        if not isinstance(name, str):
            return None
        if name not in self._entries:
            import_entry_points()
        return self._entries.get(name)

    def _imported(self, name: str, entry: _Lazy) -> T:
        module, _, attribute = entry.target.partition(":")
        try:
            thing: T = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            # A missing module of the target's own package is a mistake in the target.
            if entry.extra is None or (error.name or "").partition(".")[0] == module.partition(".")[0]:
                raise
            raise UsageError(
                f"{self.kind} {name!r} needs the library {error.name}, which is not installed: "
                f'pip install -e ".[{entry.extra}]"'
            ) from error
        # Two threads may get here, with the same entry.
        if self._entries.get(name) is entry:
            self._entries[name] = thing
        return thing


def _is_same(first: object, second: object) -> bool:
    """Whether both are one object, or a class or function that was defined twice."""
    return first is second or (_definition(first) == _definition(second) and _definition(first) is not None)


def _definition(thing: object) -> tuple[str, str] | None:
    qualname = getattr(thing, "__qualname__", None)
    return None if qualname is None else (thing.__module__, qualname)


@cache
def import_entry_points() -> None:
    """Import the modules that installed packages name in the group :data:`ENTRY_POINTS`, once.

    Raises
    ------
    UsageError
        If one cannot be imported.
    """
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"the entry point {entry.name} = {entry.value} cannot be imported: {error}") from error


def did_you_mean(name: Any, known: Iterable[str]) -> str:  # noqa: ANN401 - whatever a user gave
    """Return `` (did you mean 'x'?)`` for the known name most similar to `name`, or an empty text."""
    folded = {each.casefold(): each for each in known}
    close = get_close_matches(str(name).casefold(), folded, n=1)
    return f" (did you mean {folded[close[0]]!r}?)" if close else ""
