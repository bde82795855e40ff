"""Tables of TOML and JSON as dataclasses, whose annotations say what each field may be.

::

    @dataclass(frozen=True)
    class Blur:
        p: float
        kernel_px: int
        sigma_px: tuple[float, float] = (0.1, 2.0)

    document = read_toml(path)
    blur = read_table(Blur, document.table, str(path), text=document.text)

Annotations may be ``int``, ``float``, ``bool``, ``str``, ``Any``, ``Literal``, ``tuple``, ``Mapping[str, ...]``, other
dataclasses, and unions of these. A whole number may be given for a float; nothing else is converted. The text of
``Annotated[tuple[float, float], "two numbers [low, high]"]`` is used in messages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from leukemia_data.errors import UsageError
from leukemia_data.files.documents import KeyPath, find_line, parse_toml
from leukemia_data.registry import did_you_mean

T = TypeVar("T")

_TABLES = "a list of tables"
_WORDS: Mapping[object, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


class TomlDocument(NamedTuple):
    """The values and the text of a TOML file."""

    table: dict[str, Any]
    text: str


class TableFault(UsageError):
    """A fault of the value at `keys`; :func:`locate` adds the file."""

    def __init__(self, keys: KeyPath, message: str) -> None:
        super().__init__(message)
        self.keys = keys


def read_toml(path: Path) -> TomlDocument:
    """Read a TOML file of UTF-8, with or without a byte order mark.

    Raises
    ------
    UsageError
        If it cannot be read or is no TOML; the message begins with the path.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return TomlDocument(parse_toml(text), text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def toml_names(folder: Path) -> list[str]:
    """Return the names of the TOML files in a folder, without suffix, in alphabetical order."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def preset_path(kind: str, name_or_path: str, presets: Path) -> Path:
    """Return the file of a preset in the folder `presets` by name, or the path of a file when it ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such preset or file; the message calls it by `kind`.
    """
    if not name_or_path.endswith(".toml"):
        names = toml_names(presets)
        if name_or_path not in names:
            known = ", ".join(names)
            raise UsageError(f"no {kind} {name_or_path!r}: presets are {known}; a file must end in .toml")
        return presets / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(f"{kind} file not found: {path}")
    return path


def read_table(cls: type[T], table: object, where: str, *, text: str | None = None, keys: KeyPath = ()) -> T:
    """Build a dataclass from a table.

    Parameters
    ----------
    cls
        The dataclass, with annotations that can be evaluated at run time.
    table
        A mapping from the names of fields to values.
    where, text
        As for :func:`locate`.
    keys
        Path of the table in the document, such as ``("step", 1)`` for the second ``[[step]]``.

    Raises
    ------
    UsageError
        If a key is unknown or missing, a value is not of its field's kind, or `cls` raises it.
    """
    with locate(where, text), at(*keys):
        return parse_table(cls, table)


def parse_table(cls: type[T], table: object) -> T:
    """Build a dataclass from a table as :func:`read_table`; raises TableFault with the path of the wrong key."""
    known = fields(cast(Any, cls))
    names = [field.name for field in known]
    takes = f"it takes {', '.join(names) or 'none'}"
    given = _as_mapping(table, f"; {takes}")
    for key in given:
        if key not in names:
            raise TableFault((key,), f"unknown key {key!r:.60}{did_you_mean(key, names)}; {takes}")
    required = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    missing = [name for name in required if name not in given]
    if missing:
        raise TableFault((), f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; {takes}")
    hints = get_type_hints(cls, include_extras=True)
    values = {name: parse_value(value, hints[name], name) for name, value in given.items()}
    try:
        return cls(**values)
    except UsageError as error:
        raise TableFault(_blamed(str(error), values), str(error)) from None


def parse_value(value: object, hint: object, name: str) -> Any:  # noqa: ANN401 - as the hint says
    """Return a value as of an annotation; raises TableFault, which begins with `name`, for one of another kind."""
    wanted = _words(hint)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    for option in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        if _is_table(option) and value is not None:
            with at(name):
                return _parse_mapping(value, option)
        items = _entries(value, option)
        if items is not None:
            return tuple(_parse_entry(item, kind, name, number) for number, (item, kind) in enumerate(items))
        if _is_scalar(value, option):
            return option(value) if option in (int, float) else value
    if get_origin(hint) is Literal:
        wanted += _nearest(value, get_args(hint))
    if isinstance(value, Mapping) and wanted == _TABLES:
        raise TableFault((name,), f"write each {name} as a [[{name}]] table")
    raise TableFault((name,), f"{name} must be {wanted}, got {value!r:.60}")


@contextmanager
def at(*keys: str | int) -> Iterator[None]:
    """Put `keys` before those of a TableFault of the block; any other UsageError becomes a TableFault there."""
    try:
        yield
    except TableFault as fault:
        raise TableFault((*keys, *fault.keys), str(fault)) from None
    except UsageError as error:
        raise TableFault(keys, str(error)) from None


@contextmanager
def locate(where: str, text: str | None = None) -> Iterator[None]:
    """Begin the message of a TableFault of the block with `where` and its line in `text`, or else its table.

    ``plan.toml, line 7: lr must be ...`` or ``plan.toml, stage 2 [optimizer]: lr must be ...``
    """
    try:
        yield
    except TableFault as fault:
        line = find_line(text, fault.keys) if text is not None else None
        place = f", line {line}" if line is not None else _place(fault)
        raise UsageError(f"{where}{place}: {fault}") from None


def _as_mapping(table: object, hint: str = "") -> Mapping[str, Any]:
    if not isinstance(table, Mapping):
        raise TableFault((), f"expected a table, got {table!r:.60}{hint}")
    return cast(Mapping[str, Any], table)


def _parse_mapping(value: object, hint: Any) -> Any:  # noqa: ANN401 - as the hint says
    if is_dataclass(hint):
        return value if isinstance(value, cast(type, hint)) else parse_table(cast(type, hint), value)
    return {key: parse_value(item, get_args(hint)[1], str(key)) for key, item in _as_mapping(value).items()}


def _entries(value: object, hint: object) -> list[tuple[object, object]] | None:
    """Each entry of a list with its annotation; None if another kind is meant or given."""
    if get_origin(hint) is not tuple or not isinstance(value, list | tuple):
        return None
    kinds = get_args(hint)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    return list(zip(value, kinds, strict=True)) if len(kinds) == len(value) else None


def _parse_entry(item: object, kind: object, name: str, number: int) -> Any:  # noqa: ANN401 - as the hint says
    if not _is_table(kind):
        return parse_value(item, kind, name)
    with at(name, number):
        return _parse_mapping(item, kind)


def _is_table(hint: object) -> bool:
    return is_dataclass(hint) or get_origin(hint) is Mapping


def _is_scalar(value: object, hint: object) -> bool:
    """Whether a value is of a plain annotation; numbers of NumPy are numbers."""
    if get_origin(hint) is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(hint))
    # Python's parser reads whole numbers of more than 64 bits, which TOML has not.
    is_whole = isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < 2**63
    if hint is int:
        return is_whole
    if hint is float:
        return is_whole or (isinstance(value, Real) and not isinstance(value, Integral) and math.isfinite(value))
    return hint is Any or (hint in (bool, str, NoneType) and isinstance(value, cast(type, hint)))


def _words(hint: object) -> str:
    """What an annotation allows, for messages, without None, which TOML has not."""
    if get_origin(hint) is Annotated:
        return next(note for note in get_args(hint)[1:] if isinstance(note, str))
    options = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_words(option) for option in options if option is not NoneType)
    if get_origin(hint) is Literal:
        return " or ".join(filter(None, [", ".join(map(str, options[:-1])), str(options[-1])]))
    if get_origin(hint) is tuple:
        is_open = options[-1] is Ellipsis
        plural = _plural(options[0]) if is_open or len(set(options)) == 1 else "values"
        return f"a list of {plural}" if is_open else f"a list of {len(options)} {plural}"
    return _WORDS.get(hint, "a table")


def _nearest(value: object, options: tuple[Any, ...]) -> str:
    """Hint on the option of a ``Literal`` that was meant, or on texts."""
    if isinstance(value, str):
        return did_you_mean(value, map(str, options))
    return " (a text)" if all(isinstance(option, str) for option in options) else ""


def _plural(hint: object) -> str:
    if _is_table(hint):
        return "tables"
    return {float: "numbers", int: "whole numbers", bool: "truth values", str: "texts"}.get(cast(type, hint), "values")


def _blamed(message: str, values: Mapping[str, Any]) -> KeyPath:
    """The key that a dataclass's message names first, or else whose value it has."""
    places = {key: re.search(rf"\b{re.escape(key)}\b", message) for key in values}
    named = {key: place.start() for key, place in places.items() if place is not None}
    if named:
        return (min(named, key=named.__getitem__),)
    return next(((key,) for key, value in values.items() if isinstance(value, str) and repr(value) in message), ())


def _place(fault: TableFault) -> str:
    """The table of a fault as in the file, and the key if the message does not name it."""
    keys = fault.keys
    if keys and isinstance(keys[-1], str) and re.search(rf"\b{re.escape(keys[-1])}\b", str(fault)):
        keys = keys[:-1]
    text, names = "", list[str]()
    for key in keys:
        if isinstance(key, int):
            text, names = f"{text}, {'.'.join(names)} {key + 1}", []
        else:
            names.append(key)
    return f"{text} [{'.'.join(names)}]" if names else text
