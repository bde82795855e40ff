"""The recipe: an ordered list of validated preprocessing operations, as a value.

A recipe says what happens to every frame before it is cached. It is read from TOML (a shipped preset or a user's
file), stored as a plain dictionary in manifests and checkpoints, and is the main part of a cache's fingerprint.
The operations themselves are in ``operations``, their pixels in ``preprocess``; nothing here needs NumPy or OpenCV.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

from leukemia_data.errors import UsageError
from leukemia_data.files.documents import parse_toml
from leukemia_data.operations.checks import require, require_side
from leukemia_data.operations.operation import (
    OPERATIONS,
    ClaheLab,
    Framing,
    Operation,
    depends_on_size,
    finds_the_cell,
    keeps_the_background,
    operation_to_dict,
)

PRESETS_DIR = Path(__file__).parent / "presets"
_FRAMING = [op for op, operation in OPERATIONS.items() if operation in get_args(Framing)]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered operations from a decoded RGB frame to the cached square.

    Raises
    ------
    UsageError
        If there is no step, the first does not make a square of any frame (later steps count on one), or a step that
        works on the cell alone comes after one that changes the background, by which it finds the cell.
    """

    name: str
    steps: tuple[Operation, ...]
    description: str = ""

    def __post_init__(self) -> None:
        require(bool(self.steps), f"recipe {self.name!r} has no [[step]]")
        require(
            isinstance(self.steps[0], Framing),
            f"recipe {self.name!r}: the first step must make a square of any frame ({', '.join(_FRAMING)}), "
            f"it is {self.steps[0].op!r}",
        )
        self._check_background()

    @property
    def num_shared_steps(self) -> int:
        """Number of leading steps whose result is the same for every size of cache."""
        return next((number for number, step in enumerate(self.steps) if depends_on_size(step)), len(self.steps))

    @property
    def framing(self) -> Framing:
        """The first step."""
        return cast(Framing, self.steps[0])

    def framed_side_px(self, size_px: int) -> int:
        """Side of the square that the first step makes of every frame, for a cache of `size_px`."""
        return self.framing.output_side(0, size_px)

    def check_size(self, size_px: int) -> None:
        """Raise UsageError unless the recipe ends in a square of `size_px`."""
        require_side("--size", size_px)
        side = self.framed_side_px(size_px)
        for step in self.steps[1:]:
            side = step.output_side(side, size_px)
        require(
            side == size_px,
            f"recipe {self.name!r} ends at {side} px, not at {size_px} px: end it with a resize or a center_crop",
        )

    def _check_background(self) -> None:
        changed_by: tuple[int, Operation] | None = None
        for number, step in enumerate(self.steps, 1):
            if finds_the_cell(step) and changed_by is not None:
                raise UsageError(
                    f"recipe {self.name!r}: step {number}, {step.op}, works on the cell alone and finds it by its "
                    f"exactly black background, which step {changed_by[0]}, {changed_by[1].op}, changes: "
                    f"{_way_out(step, changed_by[0])}"
                )
            if changed_by is None and not keeps_the_background(step):
                changed_by = number, step

    def to_dict(self) -> dict[str, Any]:
        """Everything :meth:`from_dict` needs, with each operation's version."""
        steps = [operation_to_dict(step) for step in self.steps]
        return {"name": self.name, "description": self.description, "steps": steps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild a stored recipe; an operation of another version than this installation's is refused."""
        steps = [_parse_stored_step(step, data["name"]) for step in data["steps"]]
        return cls(data["name"], tuple(steps), data.get("description", ""))


def _way_out(step: Operation, changed_by: int) -> str:
    """What to do about a step on the cell alone after the step of that number; none can stand before the first."""
    if changed_by > 1:
        return f"put {step.op} before it"
    return "begin with a canvas" + (", or take clahe_lightness" if isinstance(step, ClaheLab) else "")


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
        table = parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    unknown = sorted(table.keys() - {"name", "description", "step"})
    require(not unknown, f"{path}: unknown key {unknown[:1]}; allowed are name, description and [[step]] tables")
    steps = table.get("step", [])
    require(isinstance(steps, list), f"{path}: write each step as a [[step]] table")
    operations = tuple(_parse_step(step, f"{path}, step {n}") for n, step in enumerate(steps, 1))
    try:
        return Recipe(str(table.get("name", path.stem)), operations, str(table.get("description", "")))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _parse_stored_step(step: Mapping[str, Any], recipe_name: str) -> Operation:
    parameters = {key: value for key, value in step.items() if key != "version"}
    operation = _parse_step(parameters, f"stored recipe {recipe_name!r}")
    require(
        operation.version == step["version"],
        f"stored recipe {recipe_name!r} uses {operation.op} version {step['version']}, this installation has version "
        f"{operation.version}: its pixels would differ; build the cache anew",
    )
    return operation


def _parse_step(step: object, where: str) -> Operation:
    require(isinstance(step, Mapping), f"{where}: expected a table, got {step!r}")
    parameters = dict(cast(Mapping[str, Any], step))
    op = parameters.pop("op", None)
    require(isinstance(op, str) and op in OPERATIONS, f"{where}: unknown op {op!r}; known are {', '.join(OPERATIONS)}")
    operation = OPERATIONS[str(op)]
    expected = {field.name: str(field.type) for field in fields(operation)}
    for key, value in parameters.items():
        require(
            key in expected,
            f"{where} ({op}): unknown parameter {key!r}; it takes {', '.join(expected) or 'none'}",
        )
        parameters[key] = _parse_parameter(value, expected[key], f"{where} ({op}): {key}")
    try:
        return operation(**parameters)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _parse_parameter(value: object, annotation: str, where: str) -> Any:  # noqa: ANN401 - a scalar, or several numbers
    if annotation == "float":
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        require(is_number, f"{where} must be a number, got {value!r}")
        return float(cast(float, value))
    if annotation.startswith("tuple"):
        count = annotation.count("float")
        is_list = isinstance(value, list | tuple) and len(value) == count
        require(is_list, f"{where} must be a list of {count} numbers, got {value!r}")
        return tuple(_parse_parameter(number, "float", where) for number in cast(list[object], value))
    if annotation.startswith("int"):
        may_be_none = annotation.endswith("None") and value is None
        is_int = isinstance(value, int) and not isinstance(value, bool)
        require(is_int or may_be_none, f"{where} must be a whole number, got {value!r}")
        return value
    require(isinstance(value, str), f"{where} must be a text, got {value!r}")
    return value
