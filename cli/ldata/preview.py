"""``ldata preview``: look at what preprocessing does."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.options import cache_root_option, json_option, recipe_option, root_option, source_argument
from cli.output import print_json
from cli.source_choice import announce_source, choose_source
from leukemia_data.errors import SourceError
from leukemia_data.recipe import load_recipe
from leukemia_data.source import list_source


@click.command("preview")
@source_argument
@recipe_option
@click.option("--size", "sizes_px", type=int, multiple=True, help="Sizes to show, repeatable.  [default: 128 and 224]")
@click.option(
    "--images", "per_class", default=3, show_default=True, type=click.IntRange(1, 20), help="Images of each class."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("preview.png"),
    show_default=True,
    help="PNG to write.",
)
@cache_root_option
@root_option
@json_option
def command(
    source: tuple[Path, ...],
    recipe_name: str,
    sizes_px: tuple[int, ...],
    per_class: int,
    out: Path,
    cache_root: Path,
    root: Path | None,
    as_json: bool,
) -> None:
    """Draw a contact sheet: a few images of each class of SOURCE, raw and after every step of the recipe.

    \b
    Examples:
      ldata preview C-NMC_Leukemia
      ldata preview my-cells --recipe my-recipe.toml --size 224 --images 5 --out sheet.png
    """
    recipe = load_recipe(recipe_name)
    sizes = sizes_px or (128, 224)
    for size_px in sizes:
        recipe.check_size(size_px)
    if not out.resolve().parent.is_dir():
        raise SourceError(f"cannot write {out}: its folder does not exist")
    choice = choose_source(source, os.environ, cache_root)
    announce_source(choice)
    listing = list_source(choice.paths, root=root)
    # matplotlib takes a second to load: not for --help.
    from cli.ldata.preview_work import draw_preview

    ids = draw_preview(listing, recipe, sizes, per_class, out)
    if as_json:
        print_json({"out": str(out), "images": ids})
    else:
        click.echo(f"{len(ids)} images, recipe {recipe.name}: {out}")
