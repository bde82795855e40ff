"""Recipes: named sequences of operations, their files, and frames preprocessed by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, cast

from leukemia_data.errors import UsageError, require
from leukemia_data.files.typed_tables import (
    TableFault,
    at,
    locate,
    parse_table,
    preset_path,
    read_table,
    read_toml,
    toml_names,
)
from leukemia_data.lazy_imports import np
from leukemia_data.operations import clahe, colour, filters, framing, resizing  # noqa: F401 - to register theirs
from leukemia_data.operations.operation import OPERATIONS, Draw, Extent, Framing, Image, Operation, Window, require_side

PRESETS_DIR = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered operations from a decoded RGB frame to the cached square.

    Raises
    ------
    UsageError
        If there is no step, the first is no :class:`Framing`, or a step that works on the cell alone follows one that
        changes the background.
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

    def visible_side_px(self, size_px: int) -> int:
        """Return the side of the central part of the first step's output that is in a cache of `size_px`."""
        side = self.framed_side_px(size_px)
        for step in self.steps[1:]:
            next_side = step.output_side(side, size_px)
            if next_side != side and not step.crops_the_centre:
                break
            side = next_side
        return side

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
                # Nothing can be put before the first step.
                cure = f"put {step.op} before it" if changed_by[0] > 1 else "begin with a canvas"
                if changed_by[0] == 1 and step.without_background:
                    cure += f", or take {step.without_background}"
                raise UsageError(
                    f"recipe {self.name!r}: step {number}, {step.op}, works on the cell alone and finds it by its "
                    f"exactly black background, which step {changed_by[0]}, {changed_by[1].op}, changes: "
                    f"{cure}"
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


def load_recipe(name_or_path: str) -> Recipe:
    """Load a shipped preset by name, or a recipe file when the argument ends in ``.toml``.

    Raises
    ------
    UsageError
        If there is no such preset or file, or the file is not a valid recipe; the message names the file and step.
    """
    path = preset_path("recipe", name_or_path, PRESETS_DIR)
    file = read_table(_RecipeFile, {"name": path.stem, **read_toml(path).table}, str(path))
    with locate(str(path)), at():
        steps = []
        for number, step in enumerate(file.step):
            with at("step", number):
                steps.append(_parse_step(step))
        return Recipe(file.name, tuple(steps), file.description)


def preset_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return toml_names(PRESETS_DIR)


@dataclass(frozen=True, slots=True)
class _RecipeFile:
    """The keys of a recipe file."""

    name: str
    description: str = ""
    step: tuple[Mapping[str, Any], ...] = ()


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


_Steps = Sequence[tuple[Operation, Extent]]


class _Pipeline:
    """The steps shared by several sizes, and the further ones of each."""

    def __init__(self, recipe: Recipe, sizes_px: Sequence[int], limit_region: bool) -> None:
        num_shared = max(recipe.num_shared_steps, 1)
        shared, rest = recipe.steps[1:num_shared], recipe.steps[num_shared:]
        compiled = partial(_compile, limit_region=limit_region)
        self.framed_side_px = recipe.framed_side_px(sizes_px[0])
        shared_side = reduce(lambda side, step: step.output_side(side, 0), shared, self.framed_side_px)
        self.further = {size_px: compiled(rest, shared_side, size_px, Window.full(size_px)) for size_px in sizes_px}
        self.starts = {
            size_px: steps[0][1].needed if steps else Window.full(size_px) for size_px, steps in self.further.items()
        }
        self.shared_window = reduce(Window.union, self.starts.values())
        self.shared = compiled(shared, self.framed_side_px, 0, self.shared_window)
        self.framed_window = self.shared[0][1].needed if self.shared else self.shared_window

    def run(self, draw: Draw) -> dict[int, Image]:
        shared = _run(self.shared, draw(self.framed_side_px, self.framed_window), self.framed_window)
        return {
            size_px: np.ascontiguousarray(_run(steps, start.cut(shared, self.shared_window), start))
            for (size_px, steps), start in zip(self.further.items(), self.starts.values(), strict=True)
        }


class Preprocessor:
    """A recipe compiled for a set of sizes.

    Parameters
    ----------
    recipe
        Ordered operations.
    sizes_px
        Sides of the squares to make.
    limit_region
        False computes every step on the whole frame, as a reference for tests.

    Raises
    ------
    UsageError
        If the recipe cannot end in a square of one of the sizes.
    """

    def __init__(self, recipe: Recipe, sizes_px: Sequence[int], *, limit_region: bool = True) -> None:
        for size_px in sizes_px:
            recipe.check_size(size_px)
        self._framing = recipe.framing
        groups = [[size_px] for size_px in sizes_px] if recipe.num_shared_steps == 0 else [sizes_px]
        self._pipelines = [_Pipeline(recipe, group, limit_region) for group in groups]

    def __call__(self, frame_HWC: Image) -> dict[int, Image]:
        """Preprocess one frame.

        Parameters
        ----------
        frame_HWC : ndarray of shape (height, width, 3), uint8
            RGB.

        Returns
        -------
        dict of int to ndarray of shape (size, size, 3), uint8
            One image per size, C-contiguous.
        """
        draw = self._framing.draw(frame_HWC)
        return {size_px: image for pipeline in self._pipelines for size_px, image in pipeline.run(draw).items()}


def trace_steps(recipe: Recipe, size_px: int, frame_HWC: Image) -> list[tuple[Operation, Image]]:
    """Return every step of a recipe with its whole output; raises UsageError as :meth:`Recipe.check_size`."""
    recipe.check_size(size_px)
    side = recipe.framed_side_px(size_px)
    pixels = recipe.framing.draw(frame_HWC)(side, Window.full(side))
    traced: list[tuple[Operation, Image]] = [(recipe.steps[0], pixels)]
    for step in recipe.steps[1:]:
        next_side = step.output_side(side, size_px)
        pixels = step.apply(pixels, Extent(side, next_side, Window.full(side), Window.full(next_side)))
        traced.append((step, pixels))
        side = next_side
    return traced


def _compile(steps: Sequence[Operation], side_px: int, size_px: int, wanted: Window, *, limit_region: bool) -> _Steps:
    """Compute the windows of the steps backwards from the wanted window of the last output."""
    sides = [side_px]
    for step in steps:
        sides.append(step.output_side(sides[-1], size_px))
    compiled = []
    for step, side, next_side in zip(reversed(steps), sides[-2::-1], sides[:0:-1], strict=True):
        produced = wanted if limit_region else Window.full(next_side)
        wanted = step.needed(produced, side, next_side) if limit_region else Window.full(side)
        compiled.append((step, Extent(side, next_side, wanted, produced)))
    return compiled[::-1]


def _run(steps: _Steps, pixels: Image, held: Window) -> Image:
    for step, extent in steps:
        pixels = step.apply(extent.needed.cut(pixels, held), extent)
        held = extent.produced
    return pixels
