"""The recipe: an ordered list of validated preprocessing operations, as a value.

A recipe describes the preprocessing of every frame before it is cached. It is read from TOML (a shipped preset or a
user's file), stored as a plain dictionary in manifests and checkpoints, and is the main part of a cache's fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from leukemia_data.errors import UsageError, require
from leukemia_data.files.typed_tables import TableFault, at, locate, parse_table, read_table, read_toml
from leukemia_data.operations import clahe, colour, filters, framing, resizing  # noqa: F401 - to register theirs
from leukemia_data.operations.operation import OPERATIONS, Framing, Operation, require_side

PRESETS_DIR = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered operations from a decoded RGB frame to the cached square.

    Raises
    ------
    UsageError
        If there is no step, the first does not make a square of any frame, or a step that works on the cell alone
        follows one that changes the background, by which it finds the cell.
    """

    name: str
    steps: tuple[Operation, ...]
    description: str = ""

    def __post_init__(self) -> None:
        require(bool(self.steps), f"recipe {self.name!r} has no [[step]]")
        framing_ops = ", ".join(op for op in OPERATIONS if issubclass(OPERATIONS.get(op), Framing))
        require(
            isinstance(self.steps[0], Framing),
            f"recipe {self.name!r}: the first step must make a square of any frame ({framing_ops}), "
            f"it is {self.steps[0].op!r}",
        )
        self._check_background()

    @property
    def num_shared_steps(self) -> int:
        """Number of leading steps whose result does not depend on the cache's size."""
        return next((number for number, step in enumerate(self.steps) if step.depends_on_size), len(self.steps))

    @property
    def framing(self) -> Framing:
        """The first step."""
        return cast(Framing, self.steps[0])

    def framed_side_px(self, size_px: int) -> int:
        """Return the side of the first step's output, for a cache of `size_px`."""
        return self.framing.output_side(0, size_px)

    def check_size(self, size_px: int) -> None:
        """Raise UsageError unless the recipe ends in a square of `size_px`."""
        require_side("size_px (--size)", size_px)
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
            if step.finds_the_cell and changed_by is not None:
                raise UsageError(
                    f"recipe {self.name!r}: step {number}, {step.op}, works on the cell alone and finds it by its "
                    f"exactly black background, which step {changed_by[0]}, {changed_by[1].op}, changes: "
                    f"{_way_out(step, changed_by[0])}"
                )
            if changed_by is None and not step.keeps_the_background:
                changed_by = number, step

    def to_dict(self) -> dict[str, Any]:
        """Return the argument of :meth:`from_dict`, with each operation's version."""
        steps = [step.to_dict() for step in self.steps]
        return {"name": self.name, "description": self.description, "steps": steps}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild a stored recipe; raises UsageError if an operation has another version than this installation's."""
        with locate(f"stored recipe {data['name']!r}"), at():
            steps = tuple(_parse_stored_step(step) for step in data["steps"])
        return cls(data["name"], steps, data.get("description", ""))


def _way_out(step: Operation, changed_by: int) -> str:
    """Advice for a step on the cell alone after step `changed_by`; no step can precede the first."""
    if changed_by > 1:
        return f"put {step.op} before it"
    return "begin with a canvas" + (f", or take {step.without_background}" if step.without_background else "")


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
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in PRESETS_DIR.glob("*.toml"))


@dataclass(frozen=True, slots=True)
class _RecipeFile:
    """The keys of a recipe file."""

    name: str
    description: str = ""
    step: tuple[Mapping[str, Any], ...] = ()


def _read_toml(path: Path) -> Recipe:
    file = read_table(_RecipeFile, {"name": path.stem, **read_toml(path).table}, str(path))
    with locate(str(path)), at():
        return Recipe(file.name, tuple(map(_parse_numbered, enumerate(file.step))), file.description)


def _parse_numbered(numbered: tuple[int, Mapping[str, Any]]) -> Operation:
    number, step = numbered
    with at("step", number):
        return _parse_step(step)


def _parse_stored_step(step: Mapping[str, Any]) -> Operation:
    op = step.get("op")
    require(op in OPERATIONS, f"operation {op!r} is not known here: import the module that registers it")
    operation = _parse_step({key: value for key, value in step.items() if key != "version"})
    require(
        operation.version == step["version"],
        f"it uses {operation.op} version {step['version']}, this installation has version {operation.version}: its "
        "pixels would differ; build the cache anew",
    )
    return operation


def _parse_step(step: Mapping[str, Any]) -> Operation:
    require("op" in step, f"op is missing: it names an operation, {', '.join(OPERATIONS)}")
    parameters = dict(step)
    op = parameters.pop("op")
    try:
        return parse_table(OPERATIONS.get(op), parameters)
    except TableFault as fault:
        raise TableFault(fault.keys, f"{op}: {str(fault).removeprefix(f'{op}: ')}") from None
