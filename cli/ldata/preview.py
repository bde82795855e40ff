"""``ldata preview``: look at what preprocessing does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from cli.completion import complete_recipe
from cli.locations import LocalPath
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
from cli.source_choice import announce_source, choose_source
from leukemia_data.errors import SourceError, UsageError
from leukemia_data.operations.recipe import Recipe, load_recipe, preset_names
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source

_STEP_SIZES_PX = (128, 224)
_COMPARED_SIZE_PX = 224


class CompareCommand(click.Command):
    """Command whose ``--compare`` takes any number of recipes: ``--compare raw report-a lab-clahe``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further recipe, as click understands it."""
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
@click.option(
    "--images", "per_class", default=3, show_default=True, type=click.IntRange(1, 20), help="Images of each class."
)
@click.option(
    "--out",
    type=LocalPath(path_type=Path, dir_okay=False),
    default=Path("preview.png"),
    show_default=True,
    help="PNG to write.",
)
@cache_root_option
@root_option
@allow_outside_option
@reading_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    source: tuple[ImagePlace, ...],
    recipe_name: str,
    compared: tuple[str, ...],
    sizes_px: tuple[int, ...],
    per_class: int,
    out: Path,
    cache_root: Path,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    as_json: bool,
) -> None:
    """Draw a contact sheet: a few images of each class of SOURCE, raw and after every step of the recipe.

    With --compare, one column for each recipe, as a cache would hold the image.

    \b
    Examples:
      ldata preview C-NMC_Leukemia
      ldata preview my-cells --recipe my-recipe.toml --size 224 --images 5 --out sheet.png
      ldata preview C-NMC_Leukemia --compare raw report-a lab-clahe --images 2
    """
    if compared and context.get_parameter_source("recipe_name") is not ParameterSource.DEFAULT:
        raise UsageError("--recipe and --compare exclude each other: name all recipes after --compare")
    recipes = [load_recipe(name) for name in compared or (recipe_name,)]
    sizes = sizes_px or ((_COMPARED_SIZE_PX,) if compared else _STEP_SIZES_PX)
    _check(recipes, sizes, bool(compared), out)
    choice = choose_source(source, os.environ, cache_root)
    announce_source(choice)
    listing = list_source(choice.paths, root=root, allow_outside=allow_outside, options=reading)
    ids = _draw(listing, recipes, sizes, per_class, out, bool(compared))
    if as_json:
        print_json({"out": str(out), "images": ids, "recipes": [recipe.name for recipe in recipes]})
    else:
        names = ", ".join(recipe.name for recipe in recipes)
        print_text(f"{len(ids)} images, recipe{'s' * (len(recipes) > 1)} {names}: {out}")


def _check(recipes: Sequence[Recipe], sizes_px: Sequence[int], is_comparison: bool, out: Path) -> None:
    if is_comparison and len(sizes_px) > 1:
        raise UsageError("--compare shows one size: give --size once")
    for recipe in recipes:
        for size_px in sizes_px:
            recipe.check_size(size_px)
    if not out.resolve().parent.is_dir():
        raise SourceError(f"cannot write {out}: its folder does not exist")


def _draw(
    listing: SourceListing,
    recipes: Sequence[Recipe],
    sizes_px: Sequence[int],
    per_class: int,
    out: Path,
    is_comparison: bool,
) -> list[str]:
    # matplotlib takes a second to load: not for --help.
    from cli.ldata.preview_work import draw_comparison, draw_steps

    if is_comparison:
        return draw_comparison(listing, recipes, sizes_px[0], per_class, out)
    return draw_steps(listing, recipes[0], sizes_px, per_class, out)
