"""``ldata scan``: how a source is understood, before anything is built."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.console import CONSOLE
from cli.options import (
    allow_outside_option,
    cache_root_option,
    json_option,
    recipe_option,
    root_option,
    source_argument,
)
from cli.output import print_json, print_text
from cli.reading_options import reading_options
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source_choice import announce_source, choose_source


@click.command("scan")
@source_argument
@recipe_option
@cache_root_option
@root_option
@allow_outside_option
@reading_options
@json_option
def command(
    source: tuple[ImagePlace, ...],
    recipe_name: str,
    cache_root: Path,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    as_json: bool,
) -> None:
    """Say how SOURCE is understood: classes, splits, subjects, frames, tables, and what is passed over.

    Nothing is built or changed. A source that can be read in several ways is refused with all of them and the options
    that choose; `ldata build` takes the same options. --recipe says whose effect on the frames is computed.

    \b
    Examples:
      ldata scan C-NMC_Leukemia
      ldata scan my-cells --class-level 2 --subject-from folder
      ldata scan cells.csv --label-column diagnosis --json
      ldata scan site1/images site2/images --exclude "masks" --merge leukemia=Early+Pre+Pro
    """
    choice = choose_source(source, os.environ, cache_root)
    announce_source(choice, CONSOLE)
    recipe = load_recipe(recipe_name)
    # Loads OpenCV and Pillow: not for --help.
    from leukemia_data.scanning.scan import scan

    found = scan(choice.paths, recipe, root=root, allow_outside=allow_outside, options=reading)
    if as_json:
        print_json(found.to_dict())
        return
    for line in found.lines():
        print_text(line)
