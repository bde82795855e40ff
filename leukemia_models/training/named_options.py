"""Named kinds with options: the common part of optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from leukemia_data.errors import UsageError
from leukemia_data.files.typed_tables import parse_value
from leukemia_data.registry import Registry


class Range(NamedTuple):
    """A condition on a value, and its words for messages."""

    holds: Callable[[Any], bool]
    words: str


ABOVE_ZERO = Range(lambda value: 0 < value < math.inf, "a finite number above 0")
NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "finite and not below 0")
AT_LEAST_ONE = Range(lambda value: 1 <= value < math.inf, "finite and at least 1")
BETWEEN = Range(lambda value: 0 < value < 1, "between 0 and 1")
BELOW_ONE = Range(lambda value: 0 <= value < 1, "in [0, 1)")
ANY = Range(lambda value: True, "")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A registered optimizer or schedule.

    Parameters
    ----------
    name : str
    options : mapping
        Its options with their defaults. A value must be of its default's type.
    ranges : mapping of str to Range
        Ranges of options that are not fields of the settings.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


def require(wanted: Range, option: str, value: object) -> None:
    """Raise UsageError unless the value is in its range."""
    try:
        holds = wanted.holds(value)
    except TypeError:
        holds = False
    if not holds:
        raise UsageError(f"{option} must be {wanted.words}, got {value}")


class NamedSettings:
    """Base of dataclasses of settings that name a kind and set its options, by fields or in ``options``.

    An option that is None is set to its default; it stays None if the kind has no such option. UsageError is raised if
    the name is unknown, an option does not belong to the kind, or a value is of another type or outside its range.

    Attributes
    ----------
    kinds : Registry
    ranges : mapping of str to Range
        Of the options that are fields.
    """

    kinds: ClassVar[Registry[Any]]
    ranges: ClassVar[Mapping[str, Range]]
    name: str
    options: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        kind: Kind = self.kinds.get(self.name)
        fields = {option: getattr(self, option) for option in self.ranges}
        given = {option: value for option, value in {**(self.options or {}), **fields}.items() if value is not None}
        for option in given:
            if option not in kind.options:
                raise UsageError(self._foreign(option, kind))
        own: dict[str, Any] = {}
        for option, default in kind.options.items():
            value = given.get(option, default)
            if option in self.ranges:
                require(self.ranges[option], option, value)
                object.__setattr__(self, option, value)
            else:
                own[option] = _as_default(value, default, option)
                require(kind.ranges.get(option, ANY), option, own[option])
        object.__setattr__(self, "options", own or None)

    def _foreign(self, option: str, kind: Kind) -> str:
        users = ", ".join(name for name in self.kinds if option in self.kinds.get(name).options)
        belongs = f"it belongs to {users}" if users else f"it takes {', '.join(kind.options) or 'none'}"
        return f"{self.kinds.kind} {kind.name} has no option {option} ({belongs}): leave it out"

    def values(self) -> dict[str, Any]:
        """Return all options of the kind, in its order."""
        own = self.options or {}
        names = self.kinds.get(self.name).options
        return {option: own[option] if option in own else getattr(self, option) for option in names}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without ``options`` if it is None, as in files of version 0.1."""
        return {name: value for name, value in vars(self).items() if name != "options" or value is not None}


def _as_default(value: Any, default: Any, option: str) -> Any:  # noqa: ANN401 - any kind of value
    """Return a value as its default's type; JSON and TOML have lists for tuples."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    return parse_value(value, type(default), option) if isinstance(default, int | float | str) else value
