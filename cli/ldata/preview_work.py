"""The part of ``ldata preview`` that decodes and draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.output import print_note
from leukemia_data.errors import ImageError, SourceError
from leukemia_data.preview import SheetRow, choose_records, draw_sheet, make_row
from leukemia_data.recipe import Recipe
from leukemia_data.source import SourceListing


def draw_preview(
    listing: SourceListing, recipe: Recipe, sizes_px: Sequence[int], per_class: int, out: Path
) -> list[str]:
    """Draw a few images of each class into `out`, and return their ids; unusable ones are left out with a note.

    Raises
    ------
    SourceError
        If none of the chosen images can be used.
    """
    rows: list[SheetRow] = []
    for record in choose_records(listing.records, listing.classes, per_class):
        class_name = listing.classes[record.label] if record.label >= 0 else "unlabelled"
        try:
            rows.append(make_row(record, class_name, recipe, sizes_px))
        except ImageError as error:
            print_note(f"note: left out {record.path}: {error}")
    if not rows:
        raise SourceError("none of the chosen images can be used")
    draw_sheet(rows, f"{listing.name}, recipe {recipe.name}", out)
    return [row.record_id for row in rows]
