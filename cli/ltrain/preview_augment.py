"""``ltrain preview-augment``: look at what training sees."""

from __future__ import annotations

from pathlib import Path

import click

from cli.locations import LocalPath
from cli.options import (
    augment_option,
    cache_location_argument,
    cache_location_option,
    json_option,
    seed_type,
    size_filter_option,
)
from leukemia_data.stores.url import Location


@click.command("preview-augment")
@cache_location_argument
@cache_location_option
@size_filter_option
@augment_option
@click.option(
    "--images", "per_class", default=3, show_default=True, type=click.IntRange(1, 20), help="Images of each class."
)
@click.option(
    "--epochs", default=8, show_default=True, type=click.IntRange(1, 40), help="Epochs to show, from the first."
)
@click.option("--seed", default=0, show_default=True, type=seed_type, help="The run's seed.")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, dir_okay=False),
    default=Path("augment.png"),
    show_default=True,
    help="PNG to write.",
)
@json_option
def command(
    cache: Location | None,
    cache_root: Location,
    size_px: int | None,
    augment: str,
    per_class: int,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Draw a grid: a few cells of each class as they are cached, and as each epoch of a run with --seed shows them.

    These are the very pixels that the run's network gets, with the normalisation undone.

    \b
    Examples:
      ltrain preview-augment --size 224 --augment report-b
      ltrain preview-augment cache/C-NMC_Leukemia/128-abeec0bcfa84 --augment runs/r18/augment.toml --out r18.png
    """
    # torch takes seconds to load: not for --help.
    from cli.ltrain.preview_augment_work import preview_augment

    preview_augment(
        cache if cache is not None else cache_root,
        size_px=size_px,
        augment=augment,
        per_class=per_class,
        epochs=epochs,
        seed=seed,
        out=out,
        as_json=as_json,
    )
