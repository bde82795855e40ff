"""The augmentation: which random changes training images get, and how strong, as a value.

It is read from TOML (a shipped preset or a user's file), stored as a plain dictionary in checkpoints, and written back
as TOML into a run's folder. How numbers are drawn is told in ``augment_draws``, what they do to pixels in
``augment_ops``; nothing here needs NumPy or torch.

Every operation has a chance ``p`` of being applied to a sample. An operation that a file leaves out is never applied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

from leukemia_data.errors import UsageError, listed
from leukemia_data.files.documents import parse_toml
from leukemia_data.records.arguments import as_flag, as_whole

AUGMENTATIONS_DIR = Path(__file__).parent / "augmentations"
WEAK_FACTOR = 0.3
# CLAHE lifts the exact-zero background of C-NMC images to grey level 4.
DEFAULT_BLACK_LEVEL = 8.0

Range = tuple[float, float]
_Operation = TypeVar("_Operation", bound="Chance")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _require_range(name: str, given: Range, least: float, most: float) -> None:
    low, high = given
    _require(least <= low <= high <= most, f"{name} must be [low, high] within {least:g}..{most:g}, got {[low, high]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """An operation that is applied to a sample with probability ``p``; by itself a flip, which needs no more."""

    p: float

    def __post_init__(self) -> None:
        for field in fields(self):
            # Frozen, and given by a program as often as by a file.
            object.__setattr__(self, field.name, _parse_value(getattr(self, field.name), str(field.type), field.name))
        _require(0 <= self.p <= 1, f"p must lie in 0..1, got {self.p}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate(Chance):
    """Turn about the centre by an angle uniform in -degrees..degrees, positive counter-clockwise, black border."""

    degrees: float

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        _require(0 <= self.degrees <= 180, f"degrees must lie in 0..180, got {self.degrees}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Chance):
    """Enlarge about the centre by a factor uniform in (low, high); under 1 shrinks and leaves a black border."""

    factor: Range

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        _require_range("factor", self.factor, 0.1, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Translate(Chance):
    """Shift along each axis by a distance uniform in -fraction..fraction of the side, black border."""

    fraction: float

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        _require(0 <= self.fraction <= 1, f"fraction must lie in 0..1, got {self.fraction}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Color(Chance):
    """Change brightness, contrast, saturation and hue, in this order.

    The first three are factors uniform in (low, high), 1 for no change. ``hue`` is a turn of the colour circle, uniform
    in (low, high), in whole turns.
    """

    brightness: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    saturation: Range = (1.0, 1.0)
    hue: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        _require_range("brightness", self.brightness, 0, 10)
        _require_range("contrast", self.contrast, 0, 10)
        _require_range("saturation", self.saturation, 0, 10)
        _require_range("hue", self.hue, -0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blur(Chance):
    """Gaussian blur with an odd kernel and a sigma uniform in (low, high), both in pixels."""

    kernel_px: int
    sigma_px: Range

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        is_odd = self.kernel_px % 2 == 1
        _require(is_odd and 3 <= self.kernel_px <= 63, f"kernel_px must be odd and in 3..63, got {self.kernel_px}")
        _require_range("sigma_px", self.sigma_px, 0.05, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Chance):
    """Add independent Gaussian noise to every value; ``variance`` is that of grey levels 0..255."""

    variance: float

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        _require(
            0 <= self.variance <= 65025, f"variance must lie in 0..65025 (grey levels squared), got {self.variance}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout(Chance):
    """Fill one square, anywhere inside the image, with black; its side is ``fraction`` of the image's."""

    fraction: float

    def __post_init__(self) -> None:
        Chance.__post_init__(self)
        _require(0 < self.fraction <= 1, f"fraction must lie in (0, 1], got {self.fraction}")

    def side_px(self, size_px: int) -> int:
        """Side of the square in an image of side `size_px`: rounded, at least one pixel."""
        return max(1, round(self.fraction * size_px))


OPERATIONS: Mapping[str, type[Chance]] = {
    "flip_horizontal": Chance,
    "flip_vertical": Chance,
    "transpose": Chance,
    "quarter_turns": Chance,
    "rotate": Rotate,
    "scale": Scale,
    "translate": Translate,
    "color": Color,
    "blur": Blur,
    "noise": Noise,
    "cutout": Cutout,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of an image; ``None`` where one is left out.

    ``quarter_turns`` turns by 90, 180 or 270 degrees, each equally likely. With ``keep_black`` what contrast and
    noise add is added only to pixels of which a channel is above ``black_level``, a grey level, after the geometry.
    """

    name: str
    description: str = ""
    keep_black: bool = True
    black_level: float = DEFAULT_BLACK_LEVEL
    flip_horizontal: Chance | None = None
    flip_vertical: Chance | None = None
    transpose: Chance | None = None
    quarter_turns: Chance | None = None
    rotate: Rotate | None = None
    scale: Scale | None = None
    translate: Translate | None = None
    color: Color | None = None
    blur: Blur | None = None
    noise: Noise | None = None
    cutout: Cutout | None = None

    def __post_init__(self) -> None:
        for key, operation in OPERATIONS.items():
            given = getattr(self, key)
            wanted = f"{key} must be {operation.__name__}(...) or None"
            _require(given is None or type(given) is operation, f"{wanted}, got {given!r:.60}")
        object.__setattr__(self, "keep_black", as_flag(self.keep_black, "keep_black"))
        object.__setattr__(self, "black_level", _parse_number(self.black_level, "black_level"))
        _require(0 <= self.black_level <= 255, f"black_level must lie in 0..255, got {self.black_level}")

    @property
    def moves(self) -> bool:
        """Whether an image may be flipped, transposed or turned by quarters."""
        return any(map(may_happen, (self.flip_horizontal, self.flip_vertical, self.transpose, self.quarter_turns)))

    @property
    def warps(self) -> bool:
        """Whether an image may be rotated, scaled or shifted, which needs interpolation."""
        return any(map(may_happen, (self.rotate, self.scale, self.translate)))

    def warnings(self) -> list[str]:
        """Sentences about settings that are allowed but probably not meant."""
        color = self.color
        if not may_happen(color):
            return []
        effects = {
            "brightness": "almost black",
            "contrast": "almost one flat grey",
            "saturation": "almost without colour",
        }
        ranges = {"brightness": color.brightness, "contrast": color.contrast, "saturation": color.saturation}
        return [
            f"augmentation {self.name!r}: {key} = [{low:g}, {high:g}] draws factors under {WEAK_FACTOR}, "
            f"which leave images {effects[key]}"
            for key, (low, high) in ranges.items()
            if low < WEAK_FACTOR
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything :meth:`from_dict` needs; operations that are left out are not in it."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Augmentation:
        """Rebuild a stored augmentation."""
        return _parse(data, "stored augmentation", default_name="stored")

    def to_toml(self) -> str:
        """All parameters as the text of a file that :func:`load_augmentation` reads back to an equal value."""
        data = self.to_dict()
        lines = [f"{key} = {_toml(value)}" for key, value in data.items() if key not in OPERATIONS]
        for key in OPERATIONS:
            if key in data:
                lines += ["", f"[{key}]", *(f"{name} = {_toml(value)}" for name, value in data[key].items())]
        return "\n".join(lines) + "\n"


def may_happen(operation: _Operation | None) -> TypeGuard[_Operation]:
    """Whether an operation is there and has a chance above 0."""
    return operation is not None and operation.p > 0


def load_augmentation(name_or_path: str) -> Augmentation:
    """Load a shipped preset by name, or an augmentation file when the argument ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such preset or file, or the file is not a valid augmentation; the message names file and table.
    """
    if not name_or_path.endswith(".toml"):
        if name_or_path not in augmentation_names():
            known = ", ".join(augmentation_names())
            raise UsageError(f"no augmentation {name_or_path!r}: presets are {known}; a file must end in .toml")
        return _read_toml(AUGMENTATIONS_DIR / f"{name_or_path}.toml")
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(f"augmentation file not found: {path}")
    return _read_toml(path)


def augmentation_names() -> list[str]:
    """Names of the shipped augmentations."""
    return sorted(path.stem for path in AUGMENTATIONS_DIR.glob("*.toml"))


def _read_toml(path: Path) -> Augmentation:
    try:
        table = parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    return _parse(table, str(path), default_name=path.stem)


def _parse(table: Mapping[str, Any], where: str, default_name: str) -> Augmentation:
    plain = ("name", "description", "keep_black", "black_level")
    unknown = sorted(table.keys() - OPERATIONS.keys() - set(plain))
    allowed = f"allowed are {', '.join(plain)} and the tables {', '.join(OPERATIONS)}"
    _require(not unknown, f"{where}: unknown key {listed(unknown)}; {allowed}")
    keep_black = table.get("keep_black", True)
    _require(isinstance(keep_black, bool), f"{where}: keep_black must be true or false, got {keep_black!r}")
    operations = {key: _parse_operation(key, table[key], f"{where} [{key}]") for key in OPERATIONS if key in table}
    black_level = _parse_number(table.get("black_level", DEFAULT_BLACK_LEVEL), f"{where}: black_level")
    try:
        return Augmentation(
            name=str(table.get("name", default_name)),
            description=str(table.get("description", "")),
            keep_black=keep_black,
            black_level=black_level,
            **cast(dict[str, Any], operations),
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _parse_operation(key: str, parameters: object, where: str) -> Chance:
    operation = OPERATIONS[key]
    expected = {field.name: str(field.type) for field in fields(operation)}
    takes = f"it takes {', '.join(expected)}"
    _require(isinstance(parameters, Mapping), f"{where}: expected a table, got {parameters!r}; {takes}")
    given = cast(Mapping[str, object], parameters)
    unknown = sorted(given.keys() - expected.keys())
    _require(not unknown, f"{where}: unknown parameter {listed(unknown)}; {takes}")
    missing = [field.name for field in fields(operation) if field.default is MISSING and field.name not in given]
    _require(not missing, f"{where}: {listed(missing)} must be given; {takes}")
    values = {name: _parse_value(value, expected[name], f"{where}: {name}") for name, value in given.items()}
    try:
        return operation(**cast(dict[str, Any], values))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _parse_value(value: object, annotation: str, where: str) -> float | int | Range:
    if annotation == "int":
        return as_whole(value, where)
    if annotation == "float":
        return _parse_number(value, where)
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    _require(is_pair, f"{where} must be two numbers [low, high], got {value!r}")
    low, high = cast(tuple[object, object], value)
    return _parse_number(low, where), _parse_number(high, where)


def _parse_number(value: object, where: str) -> float:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    _require(math.isfinite(number), f"{where} must be a number, got {value!r}")
    return number


def _toml(value: object) -> str:
    """One value as TOML writes it."""
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for one character that only TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower()
