"""The part of ``ldata preview`` that decodes and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cli.output import print_note
from leukemia_data.errors import ImageError, SourceError
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.record import Record
from leukemia_data.scanning.preview import SheetRow, choose_records, compare_row, draw_sheet, make_row
from leukemia_data.sources.found_image import printable_name
from leukemia_data.sources.source import SourceListing


def draw_steps(listing: SourceListing, recipe: Recipe, sizes_px: Sequence[int], per_class: int, out: Path) -> list[str]:
    """Draw a few images of each class into `out`, step by step, and return their ids.

    Raises
    ------
    SourceError
        If none of the chosen images can be used.
    """
    rows = _rows(listing, per_class, lambda record, name: make_row(record, name, recipe, sizes_px))
    draw_sheet(rows, f"{listing.name}, recipe {recipe.name}", out)
    return [row.record_id for row in rows]


def draw_comparison(
    listing: SourceListing, recipes: Sequence[Recipe], size_px: int, per_class: int, out: Path
) -> list[str]:
    """Draw a few images of each class into `out`, one column for each recipe, and return their ids.

    Raises
    ------
    SourceError
        If none of the chosen images can be used.
    """
    rows = _rows(listing, per_class, lambda record, name: compare_row(record, name, recipes, size_px))
    draw_sheet(rows, f"{listing.name}, {size_px} px", out)
    return [row.record_id for row in rows]


def _rows(listing: SourceListing, per_class: int, make: Callable[[Record, str], SheetRow]) -> list[SheetRow]:
    """Rows of a few images of each class; unusable ones are left out with a note."""
    rows: list[SheetRow] = []
    for record in choose_records(listing.records, listing.classes, per_class):
        class_name = listing.classes[record.label] if record.label >= 0 else "unlabelled"
        try:
            rows.append(make(record, class_name))
        except ImageError as error:
            print_note(f"note: left out {printable_name(str(record.path))}: {error}")
    if not rows:
        raise SourceError("none of the chosen images can be used")
    return rows
