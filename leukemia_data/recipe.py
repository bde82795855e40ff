"""The recipe: an ordered list of validated preprocessing operations, as a value.

A recipe says what happens to every frame before it is cached. It is read from TOML (a shipped preset or a user's
file), stored as a plain dictionary in manifests and checkpoints, and is the main part of a cache's fingerprint.
How each operation changes pixels is told in ``preprocess``; nothing here needs NumPy or OpenCV.

Each operation carries a ``version``. It is raised whenever the operation's pixels change, so that caches made before
become misses.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from leukemia_data.errors import UsageError

PRESETS_DIR = Path(__file__).parent / "presets"
MAX_SIDE_PX = 4096


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _require_side(name: str, side_px: int) -> None:
    _require(1 <= side_px <= MAX_SIDE_PX, f"{name} must lie in 1..{MAX_SIDE_PX}, got {side_px}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """Put a frame of any shape onto a black square by centre crop or zero padding."""

    op: ClassVar[str] = "canvas"
    version: ClassVar[int] = 1
    side_px: int = 450

    def __post_init__(self) -> None:
        _require_side("canvas: side_px", self.side_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return self.side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation of each colour channel (OpenCV's meaning of the numbers).

    ``clip_limit`` is a multiple of the mean bin height, ``tiles`` the number of tiles along each side.
    """

    op: ClassVar[str] = "clahe"
    version: ClassVar[int] = 1
    clip_limit: float = 3.0
    tiles: int = 9

    def __post_init__(self) -> None:
        _require(0 < self.clip_limit <= 256, f"clahe: clip_limit must lie in (0, 256], got {self.clip_limit}")
        _require(1 <= self.tiles <= 64, f"clahe: tiles must lie in 1..64, got {self.tiles}")

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        _require(side_px >= 2 * self.tiles, f"clahe: {self.tiles} tiles need more than {side_px} px")
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsharp:
    """Unsharp mask: image * (1 + strength) - Gaussian(image, sigma) * strength, saturated to 0..255."""

    op: ClassVar[str] = "unsharp"
    version: ClassVar[int] = 1
    sigma_px: float = 3.0
    strength: float = 1.5

    def __post_init__(self) -> None:
        _require(0.1 <= self.sigma_px <= 50, f"unsharp: sigma_px must lie in [0.1, 50], got {self.sigma_px}")
        _require(0 < self.strength <= 20, f"unsharp: strength must lie in (0, 20], got {self.strength}")

    @property
    def radius_px(self) -> int:
        """Reach of the Gaussian kernel: three sigma, as OpenCV chooses it for 8-bit images."""
        return (round(6 * self.sigma_px + 1) | 1) // 2

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        _require(side_px > self.radius_px, f"unsharp: sigma_px {self.sigma_px} is too wide for {side_px} px")
        return side_px


@dataclass(frozen=True, slots=True, kw_only=True)
class CenterCrop:
    """Cut the central square; without ``side_px`` the cache's own size."""

    op: ClassVar[str] = "center_crop"
    version: ClassVar[int] = 1
    side_px: int | None = None

    def __post_init__(self) -> None:
        if self.side_px is not None:
            _require_side("center_crop: side_px", self.side_px)

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        side = size_px if self.side_px is None else self.side_px
        _require(side <= side_px, f"center_crop: cannot cut {side} px out of {side_px} px")
        return side


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Resize to the cache's own size.

    ``area`` averages the source pixels under each target pixel (OpenCV INTER_AREA); ``antialias`` is bilinear with
    the triangle widened by the scale, as Pillow and torchvision do it.
    """

    op: ClassVar[str] = "resize"
    version: ClassVar[int] = 1
    method: Literal["area", "antialias"] = "area"

    def __post_init__(self) -> None:
        _require(
            self.method in ("area", "antialias"),
            f"resize: method must be area or antialias, got {self.method!r}",
        )

    def output_side(self, side_px: int, size_px: int) -> int:
        """Side of the square after this operation."""
        return size_px


Operation = Canvas | Clahe | Unsharp | CenterCrop | Resize
OPERATIONS: Mapping[str, type[Operation]] = {
    operation.op: operation for operation in (Canvas, Clahe, Unsharp, CenterCrop, Resize)
}


def depends_on_size(operation: Operation) -> bool:
    """Whether the operation's result depends on the cache's size, so that it cannot be shared between sizes."""
    return isinstance(operation, Resize) or (isinstance(operation, CenterCrop) and operation.side_px is None)


def operation_to_dict(operation: Operation) -> dict[str, Any]:
    """Name, version and parameters, as manifests and checkpoints keep them."""
    return {"op": operation.op, "version": operation.version, **asdict(operation)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered operations from a decoded RGB frame to the cached square.

    Raises
    ------
    UsageError
        If there is no step, or the first is not a canvas (later steps count on a known frame).
    """

    name: str
    steps: tuple[Operation, ...]
    description: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.steps), f"recipe {self.name!r} has no [[step]]")
        _require(
            isinstance(self.steps[0], Canvas),
            f'recipe {self.name!r}: the first step must be op = "canvas", it is {self.steps[0].op!r}',
        )

    @property
    def canvas_side_px(self) -> int:
        """Side of the square that every frame is put onto first."""
        return cast(Canvas, self.steps[0]).side_px

    def check_size(self, size_px: int) -> None:
        """Raise UsageError unless the recipe ends in a square of `size_px`."""
        _require_side("--size", size_px)
        side = self.canvas_side_px
        for step in self.steps:
            side = step.output_side(side, size_px)
        _require(
            side == size_px,
            f"recipe {self.name!r} ends at {side} px, not at {size_px} px: end it with a resize or a center_crop",
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything :meth:`from_dict` needs, with each operation's version."""
        steps = [operation_to_dict(step) for step in self.steps]
        return {"name": self.name, "description": self.description, "steps": steps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild a stored recipe; an operation of another version than this installation's is refused."""
        steps = [_parse_stored_step(step, data["name"]) for step in data["steps"]]
        return cls(data["name"], tuple(steps), data.get("description", ""))


def load_recipe(name_or_path: str) -> Recipe:
    """Load a shipped preset by name, or a recipe file when the argument ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such preset or file, or the file is not a valid recipe; the message names the file and step.
    """
    if not name_or_path.endswith(".toml"):
        if name_or_path not in preset_names():
            known = ", ".join(preset_names())
            raise UsageError(f"no recipe {name_or_path!r}: presets are {known}; a file must end in .toml")
        return _read_toml(PRESETS_DIR / f"{name_or_path}.toml")
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(f"recipe file not found: {path}")
    return _read_toml(path)


def preset_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.toml"))


def _read_toml(path: Path) -> Recipe:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    unknown = sorted(table.keys() - {"name", "description", "step"})
    _require(not unknown, f"{path}: unknown key {unknown[:1]}; allowed are name, description and [[step]] tables")
    steps = table.get("step", [])
    _require(isinstance(steps, list), f"{path}: write each step as a [[step]] table")
    operations = tuple(_parse_step(step, f"{path}, step {n}") for n, step in enumerate(steps, 1))
    try:
        return Recipe(str(table.get("name", path.stem)), operations, str(table.get("description", "")))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _parse_stored_step(step: Mapping[str, Any], recipe_name: str) -> Operation:
    parameters = {key: value for key, value in step.items() if key != "version"}
    operation = _parse_step(parameters, f"stored recipe {recipe_name!r}")
    _require(
        operation.version == step["version"],
        f"stored recipe {recipe_name!r} uses {operation.op} version {step['version']}, this installation has version "
        f"{operation.version}: its pixels would differ; build the cache anew",
    )
    return operation


def _parse_step(step: object, where: str) -> Operation:
    _require(isinstance(step, Mapping), f"{where}: expected a table, got {step!r}")
    parameters = dict(cast(Mapping[str, Any], step))
    op = parameters.pop("op", None)
    _require(isinstance(op, str) and op in OPERATIONS, f"{where}: unknown op {op!r}; known are {', '.join(OPERATIONS)}")
    operation = OPERATIONS[str(op)]
    expected = {field.name: str(field.type) for field in fields(operation)}
    for key, value in parameters.items():
        _require(
            key in expected,
            f"{where} ({op}): unknown parameter {key!r}; it takes {', '.join(expected) or 'none'}",
        )
        parameters[key] = _parse_parameter(value, expected[key], f"{where} ({op}): {key}")
    try:
        return operation(**parameters)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _parse_parameter(value: object, annotation: str, where: str) -> Any:  # noqa: ANN401 - one of three scalar types
    if annotation == "float":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        _require(is_number, f"{where} must be a number, got {value!r}")
        return float(cast(float, value))
    if annotation.startswith("int"):
        may_be_none = annotation.endswith("None") and value is None
        is_int = isinstance(value, int) and not isinstance(value, bool)
        _require(is_int or may_be_none, f"{where} must be a whole number, got {value!r}")
        return value
    _require(isinstance(value, str), f"{where} must be a text, got {value!r}")
    return value
