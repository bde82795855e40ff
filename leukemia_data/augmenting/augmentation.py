"""The augmentation: random changes of training images and their strengths, read from and written as TOML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from leukemia_data.augmenting.appearance import Blur, Color, Cutout, Noise
from leukemia_data.augmenting.geometry import Rotate, Scale, Translate
from leukemia_data.augmenting.operation import AUGMENTATIONS, Chance, CustomAugmentation, may_happen
from leukemia_data.errors import require
from leukemia_data.files.typed_tables import (
    TableFault,
    at,
    locate,
    parse_table,
    parse_value,
    preset_path,
    read_toml,
    toml_names,
)
from leukemia_data.records.arguments import as_flag
from leukemia_data.registry import did_you_mean

AUGMENTATIONS_DIR = Path(__file__).parent / "augmentations"
# CLAHE raises the exact-zero background of C-NMC images to grey level 4.
DEFAULT_BLACK_LEVEL = 8.0
_PLAIN = ("name", "description", "keep_black", "black_level")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of an image; ``None`` for an operation that is left out.

    ``quarter_turns`` rotates by 90, 180 or 270 degrees with equal probability. With ``keep_black``, contrast and noise
    change only pixels with a channel above the grey level ``black_level`` after the geometry. ``custom`` operations
    are applied in this order after all others.
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
    custom: tuple[CustomAugmentation, ...] = ()

    def __post_init__(self) -> None:
        for key in _SHIPPED:
            given, operation = getattr(self, key), AUGMENTATIONS.get(key)
            wanted = f"{key} must be {operation.__name__}(...) or None"
            require(given is None or type(given) is operation, f"{wanted}, got {given!r:.60}")
        object.__setattr__(self, "custom", tuple(self.custom))
        for change in self.custom:
            is_custom = isinstance(change, CustomAugmentation) and change.name not in _FIELDS
            require(is_custom, f"custom must be operations derived from CustomAugmentation, got {change!r:.60}")
        names = [change.name for change in self.custom]
        require(len(set(names)) == len(names), f"custom has an operation twice: {', '.join(names)}")
        object.__setattr__(self, "keep_black", as_flag(self.keep_black, "keep_black"))
        object.__setattr__(self, "black_level", parse_value(self.black_level, float, "black_level"))
        require(0 <= self.black_level <= 255, f"black_level must lie in 0..255, got {self.black_level}")

    @property
    def moves(self) -> bool:
        """Whether images may be flipped, transposed or rotated by quarter turns."""
        return any(map(may_happen, self.moving))

    @property
    def moving(self) -> tuple[Chance | None, ...]:
        """Horizontal flip, vertical flip, transpose and quarter turns."""
        return self.flip_horizontal, self.flip_vertical, self.transpose, self.quarter_turns

    @property
    def warps(self) -> bool:
        """Whether images may be rotated, scaled or shifted, which needs interpolation."""
        return any(map(may_happen, (self.rotate, self.scale, self.translate)))

    def warnings(self) -> list[str]:
        """Return warnings about valid but probably unintended settings."""
        if not may_happen(self.color):
            return []
        return [f"augmentation {self.name!r}: {warning}" for warning in self.color.warnings()]

    def to_dict(self) -> dict[str, Any]:
        """Return the argument of :meth:`from_dict`, without operations that are left out."""
        return {key: getattr(self, key) for key in _PLAIN} | {key: asdict(value) for key, value in self._operations()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Augmentation:
        """Rebuild a stored augmentation."""
        return _parse({"name": "stored", **data}, "stored augmentation")

    def to_toml(self) -> str:
        """Return TOML text that :func:`load_augmentation` reads back to an equal value."""
        lines = [f"{key} = {_toml(getattr(self, key))}" for key in _PLAIN]
        for key, operation in self._operations():
            lines += ["", f"[{key}]", *(f"{name} = {_toml(value)}" for name, value in asdict(operation).items())]
        return "\n".join(lines) + "\n"

    def _operations(self) -> Iterator[tuple[str, Chance]]:
        """Operations by name, in order of application except for the geometry."""
        for key in _SHIPPED:
            if (operation := getattr(self, key)) is not None:
                yield key, operation
        yield from ((change.name, change) for change in self.custom)


_FIELDS = tuple(field.name for field in fields(Augmentation))
_SHIPPED = tuple(key for key in _FIELDS if key not in (*_PLAIN, "custom"))


def load_augmentation(name_or_path: str) -> Augmentation:
    """Load a shipped preset by name, or an augmentation file when the argument ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such preset or file, or the file is not a valid augmentation; the message names file and table.
    """
    path = preset_path("augmentation", name_or_path, AUGMENTATIONS_DIR)
    return _parse({"name": path.stem, **read_toml(path).table}, str(path))


def augmentation_names() -> list[str]:
    """Return the names of the shipped augmentations."""
    return toml_names(AUGMENTATIONS_DIR)


def _parse(table: Mapping[str, Any], where: str) -> Augmentation:
    known = (*_PLAIN, *_SHIPPED)
    with locate(where):
        custom = [_parse_custom(key, value) for key, value in table.items() if key not in known]
        shipped = {key: table[key] for key in known if key in table}
        return parse_table(Augmentation, {**shipped, "custom": tuple(custom)})


def _parse_custom(key: str, value: object) -> Chance:
    if key not in AUGMENTATIONS:
        takes = tuple(dict.fromkeys((*_PLAIN, *_SHIPPED, *AUGMENTATIONS)))
        raise TableFault((key,), f"unknown key {key!r:.60}{did_you_mean(key, takes)}; it takes {', '.join(takes)}")
    with at(key):
        return parse_table(AUGMENTATIONS.get(key), value)


def _toml(value: object) -> str:
    """Format a value as TOML."""
    if isinstance(value, str):
        # JSON's escapes are valid TOML; TOML escapes one more character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower()
