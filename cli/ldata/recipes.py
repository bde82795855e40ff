"""``ldata recipes``: the shipped recipes, and how to write one."""

from __future__ import annotations

import click

from cli.completion import complete_recipe
from cli.ldata.info import format_step
from cli.options import json_option
from cli.output import print_json, print_text
from leukemia_data.operations.recipe import Recipe, load_recipe, preset_names


@click.command("recipes")
@click.argument("name", required=False, shell_complete=complete_recipe)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the shipped preprocessing recipes, or show the preset or .toml file NAME.

    A recipe file holds [[step]] tables: the first makes a square of any frame, the last leads to the cache's size.

    \b
    Examples:
      ldata recipes
      ldata recipes report-a
      ldata recipes my-recipe.toml     # checks it, too
    """
    recipes = [load_recipe(name)] if name is not None else [load_recipe(preset) for preset in preset_names()]
    if as_json:
        print_json([recipe.to_dict() for recipe in recipes])
        return
    print_text("\n\n".join(_describe(recipe) for recipe in recipes))


def _describe(recipe: Recipe) -> str:
    steps = [f"  {number}. {format_step(step)}" for number, step in enumerate(recipe.to_dict()["steps"], 1)]
    return "\n".join([f"{recipe.name}: {recipe.description}", *steps])
