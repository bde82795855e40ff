"""Kinds that are chosen by name and have options of their own: what optimizers and schedules have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from leukemia_data.errors import UsageError
from leukemia_data.files.typed_tables import parse_value
from leukemia_data.registry import Registry


class Range(NamedTuple):
    """What a value must be: a test, and its words."""

    holds: Callable[[Any], bool]
    words: str


ABOVE_ZERO = Range(lambda value: 0 < value < math.inf, "a finite number above 0")
NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "finite and not below 0")
AT_LEAST_ONE = Range(lambda value: 1 <= value < math.inf, "finite and at least 1")
BETWEEN = Range(lambda value: 0 < value < 1, "between 0 and 1")
BELOW_ONE = Range(lambda value: 0 <= value < 1, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a registry holds of a kind of optimizer or schedule.

    Parameters
    ----------
    name : str
        By which settings choose it.
    options : mapping
        The options it takes, with their defaults. A value must be of its default's type.
    ranges : mapping of str to Range
        What values of options must be. Those that are fields of the settings have ranges there.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


K = TypeVar("K", bound=Kind)


def require(wanted: Range, option: str, value: object) -> None:
    """Raise UsageError unless the value is in its range."""
    try:
        holds = wanted.holds(value)
    except TypeError:
        holds = False
    if not holds:
        raise UsageError(f"{option} must be {wanted.words}, got {value}")


def fill_in_options(settings: Any, kinds: Registry[K], shared: Mapping[str, Range]) -> None:  # noqa: ANN401 - a dataclass
    """Give a settings object, in its ``__post_init__``, every option of the kind that it names.

    Parameters
    ----------
    settings : dataclass
        Has ``name``, a field for each of `shared`, and ``options`` for the kind's further options. An option that is
        None gets its default if the kind takes it.
    kinds : Registry
        Of which `settings` names one.
    shared : mapping of str to Range
        Options that are fields.

    Raises
    ------
    UsageError
        If the name is unknown, an option does not belong to it, or a value is of another type or outside its range.
    """
    kind = kinds.get(settings.name)
    fields = {option: getattr(settings, option) for option in shared}
    given = {option: value for option, value in {**(settings.options or {}), **fields}.items() if value is not None}
    for option in given:
        if option not in kind.options:
            raise UsageError(_foreign_option(kinds, kind, option))
    own: dict[str, Any] = {}
    for option, default in kind.options.items():
        value = given.get(option, default)
        if option in shared:
            require(shared[option], option, value)
            object.__setattr__(settings, option, value)
        else:
            own[option] = _as_default(value, default, option)
            require(kind.ranges.get(option, ANY), option, own[option])
    object.__setattr__(settings, "options", own or None)


def option_values(settings: Any, kind: Kind) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Return all options that :func:`fill_in_options` has given a settings object, in the kind's order."""
    own = settings.options or {}
    return {option: own[option] if option in own else getattr(settings, option) for option in kind.options}


def without_empty_options(values: dict[str, Any]) -> dict[str, Any]:
    """Leave ``options`` out of a settings object's fields where there are none, as files of version 0.1 have it."""
    return {name: value for name, value in values.items() if name != "options" or value is not None}


ANY = Range(lambda value: True, "")


def _foreign_option(kinds: Registry[K], kind: K, option: str) -> str:
    users = ", ".join(name for name in kinds if option in kinds.get(name).options)
    belongs = f"it belongs to {users}" if users else f"it takes {', '.join(kind.options) or 'none'}"
    return f"{kinds.kind} {kind.name} has no option {option} ({belongs}): leave it out"


def _as_default(value: Any, default: Any, option: str) -> Any:  # noqa: ANN401 - any kind of value
    """Return a value as its default's type; JSON and TOML make lists of tuples."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    return parse_value(value, type(default), option) if isinstance(default, int | float | str) else value
