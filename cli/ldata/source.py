"""``ldata sample``, ``scan`` and ``preview``: images before anything is built of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from cli.console import CONSOLE, print_result
from cli.options import (
    FILE,
    FOLDER,
    OptionValue,
    cache_root_option,
    complete_recipe,
    given_options,
    json_option,
    reading_options,
    recipe_option,
    source_argument,
    table_options,
)
from leukemia_data.errors import UsageError
from leukemia_data.files.text import format_bytes
from leukemia_data.operations.recipe import load_recipe, preset_names
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source_choice import announce_source, choose_source


@click.command("sample")
@click.argument("out", type=FOLDER)
@click.option("--subjects", "num_subjects", default=24, help="Subjects, two thirds with leukaemia.")
@click.option("--cells", "cells_per_subject", default=20, help="Cells of each subject.")
@click.option("--classes", "num_classes", default=2, help="2: like C-NMC; 3 to 20: made-up kinds of cells.")
@click.option("--seed", default=0, help="Another seed, other cells.")
@json_option
def sample(out: Path, num_subjects: int, cells_per_subject: int, num_classes: int, seed: int, as_json: bool) -> None:
    """Write generated white cells below OUT, in the tree and with the names of C-NMC 2019.

    450x450 24-bit BMP files on exactly black ground, both classes, stain and light differing between subjects. The same
    arguments give the same bytes. They are for trying and testing; nothing medical follows from them. With --classes
    there are more kinds of cells, in a folder for each kind and subject.

    \b
    Examples:
      ldata sample demo-images
      ldata sample small --subjects 6 --cells 4 --seed 1
      ldata sample kinds --classes 5 --subjects 40
    """
    # Loads OpenCV: not for --help.
    from leukemia_data.sources.sample_set import write_sample

    with CONSOLE.progress(num_subjects * cells_per_subject, "generating") as bar:
        summary = write_sample(
            out,
            num_subjects=num_subjects,
            cells_per_subject=cells_per_subject,
            num_classes=num_classes,
            seed=seed,
            progress=bar.update,
        )
    people = f"{summary.num_all_subjects} leukaemia and {summary.num_hem_subjects} healthy subjects"
    if num_classes > 2:
        people = f"{num_subjects} subjects and {num_classes} kinds"
    lines = (
        f"{summary.num_images} generated cells of {people}, {format_bytes(summary.num_bytes)}, in {summary.root}",
        f"Next: ldata build {summary.root}",
    )
    print_result({**asdict(summary), "root": str(summary.root)}, lines, as_json=as_json)


@click.command("scan")
@source_argument
@recipe_option
@cache_root_option
@table_options
@reading_options
@json_option
def scan(
    source: tuple[ImagePlace, ...],
    recipe: str,
    cache_root: Path,
    reading: ReadingOptions,
    as_json: bool,
    **tables: OptionValue,
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
    chosen_recipe = load_recipe(recipe)
    # Loads OpenCV and Pillow: not for --help.
    from leukemia_data.scanning.scan import scan as scan_source

    found = scan_source(choice.paths, chosen_recipe, options=reading, **tables)
    print_result(found, found.lines(), as_json=as_json)


class CompareCommand(click.Command):
    """Command whose ``--compare`` takes any number of recipes: ``--compare raw report-a lab-clahe``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further recipe, and parse."""
        return super().parse_args(ctx, repeat_option(args, "--compare"))


def repeat_option(arguments: Sequence[str], option: str) -> list[str]:
    """Write ``--compare A B`` as ``--compare A --compare B``.

    The recipes end at the next option and at an existing file or folder that is no recipe: the source.

    Raises
    ------
    UsageError
        If another option follows at once.
    """
    spread: list[str] = []
    is_open = False
    for position, word in enumerate(arguments):
        if word == "--":
            return [*spread, *arguments[position:]]
        follows = position > 0 and arguments[position - 1] == option
        if follows and word.startswith("-"):
            raise UsageError(f"{option} names no recipe: {word} follows it at once")
        if word.startswith("-"):
            is_open = word == option or word.startswith(f"{option}=")
        elif is_open and not follows:
            is_open = _may_be_recipe(word)
            spread += [option] * is_open
        spread.append(word)
    return spread


def _may_be_recipe(word: str) -> bool:
    return word in preset_names() or word.endswith(".toml") or not Path(word).exists()


@click.command("preview", cls=CompareCommand)
@source_argument
@recipe_option
@click.option(
    "--compare",
    "compared",
    multiple=True,
    metavar="RECIPE...",
    shell_complete=complete_recipe,
    help="Lay these recipes side by side instead.",
)
@click.option(
    "--size",
    "sizes_px",
    type=int,
    multiple=True,
    help="Sizes to show, repeatable; with --compare one.  [default: 128 and 224; with --compare 224]",
)
@click.option("--images", "per_class", default=3, type=click.IntRange(1, 20), help="Images of each class.")
@click.option("--out", type=FILE, default=Path("preview.png"), help="PNG to write.")
@cache_root_option
@table_options
@reading_options
@json_option
def preview(
    source: tuple[ImagePlace, ...],
    recipe: str,
    compared: tuple[str, ...],
    out: Path,
    cache_root: Path,
    as_json: bool,
    **options: OptionValue,
) -> None:
    """Draw a contact sheet: a few images of each class of SOURCE, raw and after every step of the recipe.

    With --compare, one column for each recipe, as a cache would hold the image.

    \b
    Examples:
      ldata preview C-NMC_Leukemia
      ldata preview my-cells --recipe my-recipe.toml --size 224 --images 5 --out sheet.png
      ldata preview C-NMC_Leukemia --compare raw report-a lab-clahe --images 2
    """
    if compared and "recipe" in given_options():
        raise UsageError("--recipe and --compare exclude each other: name all recipes after --compare")
    recipes = [load_recipe(name) for name in compared or (recipe,)]
    choice = choose_source(source, os.environ, cache_root)
    announce_source(choice, CONSOLE)
    # Loads matplotlib: not for --help.
    from leukemia_data.scanning.preview import preview as draw_preview

    drawn = draw_preview(choice.paths, recipes, out, compare=bool(compared), console=CONSOLE, **options)
    plural = "s" if len(drawn.recipes) > 1 else ""
    line = f"{len(drawn.images)} images, recipe{plural} {', '.join(drawn.recipes)}: {drawn.out}"
    print_result(drawn, [line], as_json=as_json)
