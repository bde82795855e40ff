"""Named kinds with options: the common part of optimizers and schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

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
    """Set the missing options of a settings object to the defaults of its kind, in its ``__post_init__``.

    Parameters
    ----------
    settings : dataclass
        Has ``name``, a field for each of `shared`, and ``options`` for the others; None stands for the default.
    kinds : Registry
        Holds the kind that `settings` names.
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
    """Return all options of a settings object, in the kind's order."""
    own = settings.options or {}
    return {option: own[option] if option in own else getattr(settings, option) for option in kind.options}


def without_empty_options(values: dict[str, Any]) -> dict[str, Any]:
    """Return a settings object's fields without ``options`` if it is None, as in files of version 0.1."""
    return {name: value for name, value in values.items() if name != "options" or value is not None}


def _foreign_option(kinds: Registry[K], kind: K, option: str) -> str:
    users = ", ".join(name for name in kinds if option in kinds.get(name).options)
    belongs = f"it belongs to {users}" if users else f"it takes {', '.join(kind.options) or 'none'}"
    return f"{kinds.kind} {kind.name} has no option {option} ({belongs}): leave it out"


def _as_default(value: Any, default: Any, option: str) -> Any:  # noqa: ANN401 - any kind of value
    """Return a value as its default's type; JSON and TOML have lists for tuples."""
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        return tuple(value)
    return parse_value(value, type(default), option) if isinstance(default, int | float | str) else value
