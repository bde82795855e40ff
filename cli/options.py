"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from cli.locations import LocalPath, LocationType, RootType, SourceType

DEFAULT_CACHE_ROOT = Path("cache")

seed_type = click.IntRange(0, 2**63 - 1)


def option_name(parameter: str) -> str:
    """The option as the user writes it: ``--lr`` for ``lr``, ``--size`` for ``size_px``."""
    return "--" + parameter.removeprefix("as_").removesuffix("_px").removesuffix("_name").replace("_", "-")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, for scripts.")

cache_root_option = click.option(
    "--cache",
    "cache_root",
    type=LocalPath(path_type=Path, file_okay=False),
    default=DEFAULT_CACHE_ROOT,
    show_default=True,
    help="Folder that holds the caches.",
)

cache_location_option = click.option(
    "--cache",
    "cache_root",
    type=LocationType(),
    default=DEFAULT_CACHE_ROOT,
    show_default=True,
    help="Folder that holds the caches, or its URL.",
)

cache_argument = click.argument("cache", required=False, type=LocalPath(path_type=Path, file_okay=False))

cache_location_argument = click.argument("cache", required=False, type=LocationType(), metavar="[CACHE|URL]")

size_filter_option = click.option("--size", "size_px", type=int, help="Choose the cache of this size.")

recipe_option = click.option(
    "--recipe", "recipe_name", default="report-a", show_default=True, help="Preset name or recipe file (.toml)."
)

augment_option = click.option(
    "--augment",
    default="flips",
    show_default=True,
    help="Random changes of training images: none, flips, report-a, report-a-geometry, report-b, or a file (.toml).",
)

source_argument = click.argument("source", nargs=-1, type=SourceType())

root_option = click.option(
    "--root",
    type=RootType(),
    help="Folder or URL that the paths in CSV tables start from (default: the table's own).",
)

allow_outside_option = click.option(
    "--allow-outside",
    is_flag=True,
    help="Take files that a CSV table names outside its root too (absolute paths, .., links).",
)
