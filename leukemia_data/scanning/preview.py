"""Contact sheets: a few images of each class after each step of a recipe, or by several recipes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.decoding.decode import decode_rgb, read_file
from leukemia_data.errors import ImageError, SourceError, UsageError
from leukemia_data.files.atomic import move_into_place, scratch_path
from leukemia_data.files.text import printable
from leukemia_data.operations.operation import Image
from leukemia_data.operations.recipe import Preprocessor, Recipe, trace_steps
from leukemia_data.records.record import ImagePlace, Record, printable_name
from leukemia_data.scanning.scan import spread_evenly
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source

_CELL_INCHES = 1.9
_DPI = 120
_POINTS_PER_INCH = 72
_LETTER_WIDTH, _LINE_HEIGHT = 0.7, 1.3
"""Of a wide letter with a margin, as fractions of the font size."""
_STEP_POINTS, _FILE_POINTS, _CLASS_POINTS = 8, 6, 9


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One image of the sheet: its class, its id and its frames, each with a title."""

    class_name: str
    record_id: str
    frames: tuple[tuple[str, Image], ...]


STEP_SIZES_PX = (128, 224)
COMPARED_SIZE_PX = 224


@dataclass(frozen=True, slots=True)
class Preview:
    """A drawn sheet: its file, the ids of its images, and the names of the recipes."""

    out: Path
    images: tuple[str, ...]
    recipes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return {"out": str(self.out), "images": list(self.images), "recipes": list(self.recipes)}


def preview(
    sources: Sequence[ImagePlace],
    recipes: Sequence[Recipe],
    out: Path,
    *,
    compare: bool = False,
    sizes_px: Sequence[int] = (),
    per_class: int = 3,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    console: Console = NULL_CONSOLE,
) -> Preview:
    """Draw a few images of each class into one PNG: raw and after every step of a recipe, or by several recipes.

    Parameters
    ----------
    sources, root, allow_outside, reading
        As for :func:`leukemia_data.sources.source.list_source`, whose errors it raises.
    recipes
        The recipe whose steps are shown, or those to compare.
    out
        The PNG; its folder must exist.
    compare
        Show the cached image by each recipe.
    sizes_px
        Sizes of the cache, one for a comparison; empty for the defaults.
    per_class
        Number of images of each class.
    console
        Receives notes on unusable images.

    Raises
    ------
    UsageError
        If a recipe cannot make such a size, or a comparison has several.
    SourceError
        If the folder of `out` does not exist, or no chosen image can be used.
    """
    sizes_px = tuple(sizes_px) or ((COMPARED_SIZE_PX,) if compare else STEP_SIZES_PX)
    _check(recipes, sizes_px, out, is_comparison=compare)
    listing = list_source(sources, root=root, allow_outside=allow_outside, options=reading)
    rows = []
    for record in _choose_records(listing.records, listing.classes, per_class):
        class_name = listing.classes[record.label] if record.label >= 0 else "unlabelled"
        try:
            frame = decode_rgb(read_file(record.path).data)
            raw = f"raw {frame.shape[0]}x{frame.shape[1]}", frame
            if compare:
                shown = [(each.name, Preprocessor(each, sizes_px)(frame)[sizes_px[0]]) for each in recipes]
            else:
                shown = list(_by_step(frame, recipes[0], sizes_px))
            rows.append(SheetRow(class_name, record.record_id, (raw, *shown)))
        except ImageError as error:
            console.note(f"note: left out {printable_name(str(record.path))}: {error}")
    if not rows:
        raise SourceError("none of the chosen images can be used")
    title = f"{sizes_px[0]} px" if compare else f"recipe {recipes[0].name}"
    draw_sheet(rows, f"{listing.name}, {title}", out)
    return Preview(out, tuple(row.record_id for row in rows), tuple(recipe.name for recipe in recipes))


def _check(recipes: Sequence[Recipe], sizes_px: Sequence[int], out: Path, *, is_comparison: bool) -> None:
    if is_comparison and len(sizes_px) > 1:
        raise UsageError("--compare shows one size: give --size once")
    for recipe in recipes:
        for size_px in sizes_px:
            recipe.check_size(size_px)
    if not out.resolve().parent.is_dir():
        raise SourceError(f"cannot write {out}: its folder does not exist")


def _choose_records(records: Sequence[Record], classes: Sequence[str], per_class: int) -> list[Record]:
    """A few records of each class, evenly spaced over the list, unlabelled ones last."""
    chosen: list[Record] = []
    for label in [*range(len(classes)), -1]:
        members = [record for record in records if record.label == label and not record.is_missing]
        chosen.extend(spread_evenly(members, per_class))
    return chosen


def _by_step(frame_HWC: Image, recipe: Recipe, sizes_px: Sequence[int]) -> Iterator[tuple[str, Image]]:
    """Yield the pixels after each step, those that all sizes share once."""
    for position, size_px in enumerate(sizes_px):
        steps = trace_steps(recipe, size_px, frame_HWC)
        for step, pixels in steps[recipe.num_shared_steps * (position > 0) :]:
            yield step.title(pixels.shape[0]), pixels


def shortened(text: str, max_letters: int) -> str:
    """Return the text in printable form, with the middle replaced by three dots if it is longer.

    >>> shortened("UID_11_1_a_photograph_of_2024-11-01_all.bmp", 20)
    'UID_11_1..._all.bmp'
    """
    text = printable(text)
    if len(text) <= max_letters:
        return text
    num_kept = (max_letters - 3) // 2
    return f"{text[:num_kept]}...{text[-num_kept:]}"


def draw_sheet(rows: Sequence[SheetRow], title: str, path: Path) -> None:
    """Draw the rows into one PNG, atomically; columns are titled by step."""
    figure = sheet_figure(rows, title)
    with scratch_path(path.parent, path.name) as scratch:
        figure.savefig(scratch, dpi=_DPI, format="png")
        move_into_place(scratch, path)


def sheet_figure(rows: Sequence[SheetRow], title: str) -> Figure:
    """Return the rows as a figure; names wider than a picture are wrapped."""
    steps = [_broken(name, _STEP_POINTS) for name, _ in rows[0].frames]
    files = [_broken(Path(row.record_id).name, _FILE_POINTS) for row in rows]
    classes = [_broken(row.class_name, _CLASS_POINTS) for row in rows]
    num_columns = len(steps)
    width = _CELL_INCHES * num_columns + _more_inches([max(classes, key=len)], _CLASS_POINTS)
    height = _CELL_INCHES * len(rows) + 0.7
    height += _more_inches(files, _FILE_POINTS) + _more_inches([max(steps, key=len)], _STEP_POINTS)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), num_columns, squeeze=False)
    for row_axes, row, file, class_name in zip(axes, rows, files, classes, strict=True):
        for axis, step, (_, pixels) in zip(row_axes, steps, row.frames, strict=True):
            axis.imshow(pixels, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row is rows[0]:
                axis.set_title(step, fontsize=_STEP_POINTS, parse_math=False)
        row_axes[0].set_ylabel(class_name, fontsize=_CLASS_POINTS, parse_math=False)
        row_axes[0].set_xlabel(file, fontsize=_FILE_POINTS, parse_math=False)
    figure.suptitle(printable(title), fontsize=10, parse_math=False)
    return figure


def _broken(name: str, points: float) -> str:
    """Wrap a name to the width of a picture."""
    num_letters = int(_CELL_INCHES * _POINTS_PER_INCH / (points * _LETTER_WIDTH))
    return textwrap.fill(printable(name), num_letters, break_on_hyphens=False)


def _more_inches(names: Sequence[str], points: float) -> float:
    """Height of the lines of names beyond the first."""
    return sum(name.count("\n") for name in names) * points * _LINE_HEIGHT / _POINTS_PER_INCH
