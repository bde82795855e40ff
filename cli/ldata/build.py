"""``ldata build``: from images to caches."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from cli.ldata.cache_text import cache_lines, cache_summary
from cli.options import cache_root_option, json_option, recipe_option, root_option, source_argument
from cli.output import print_json, print_note
from cli.source_choice import SAMPLE_CACHE_NAME, announce_source, choose_source
from leukemia_data.caches.manifest import Manifest, cache_dir_name, find_current, source_state
from leukemia_data.errors import UsageError
from leukemia_data.recipes.recipe import Recipe, load_recipe
from leukemia_data.samples.fingerprint import cache_fingerprint, installed_opencv_version
from leukemia_data.sources.source import SourceListing, list_source

_MAX_BAD = re.compile(r"(\d+(?:\.\d+)?)%|(\d+)")
_CACHE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.command("build")
@source_argument
@click.option(
    "--size", "sizes_px", type=int, multiple=True, help="Side of the cached images in px, repeatable.  [default: 224]"
)
@recipe_option
@cache_root_option
@click.option("--name", help="Name of the cache (default: that of the source's folder).")
@root_option
@click.option(
    "--n-jobs", default=-1, show_default=True, help="Worker processes; -1 means one per core. Never changes a byte."
)
@click.option(
    "--on-error",
    type=click.Choice(["fail", "quarantine"]),
    default="fail",
    show_default=True,
    help="Unusable images: stop, or leave them out and list them.",
)
@click.option(
    "--max-bad", default="5%", show_default=True, help="With quarantine: fail when more images than N or P% are bad."
)
@json_option
def command(
    source: tuple[Path, ...],
    sizes_px: tuple[int, ...],
    recipe_name: str,
    cache_root: Path,
    name: str | None,
    root: Path | None,
    n_jobs: int,
    on_error: str,
    max_bad: str,
    as_json: bool,
) -> None:
    """Preprocess the images of SOURCE into one cache per --size.

    SOURCE is a C-NMC folder in any published layout, any folder with one folder per class, or CSV tables with columns
    Path[,label[,subject[,split]]]. Without SOURCE: $LDATA_SOURCE, else ./data, else a built-in sample of generated
    cells. Building again costs only what is new or changed; a build that was stopped goes on where it stopped.

    \b
    Examples:
      ldata build C-NMC_Leukemia --size 128 --size 224
      ldata build train.csv valid.csv resnet_18_test.csv --root lab3 --name lab
      ldata build my-cells --recipe raw --on-error quarantine --max-bad 20
    """
    started_s = time.perf_counter()
    listed_at_ns = time.time_ns()
    recipe = load_recipe(recipe_name)
    sizes = tuple(dict.fromkeys(sizes_px)) or (224,)
    for size_px in sizes:
        recipe.check_size(size_px)
    allowed_bad = _parse_max_bad(max_bad)
    if n_jobs == 0:
        raise UsageError("--n-jobs 0: give a number of processes, or -1 for one per core")
    if name is not None:
        _check_name(name)
    choice = choose_source(source, os.environ, cache_root)
    announce_source(choice)
    listing = list_source(choice.paths, root=root)
    for note in listing.notes:
        print_note(f"note: {note}")
    cache_name = name or (SAMPLE_CACHE_NAME if choice.is_sample else listing.name)
    opencv_version = installed_opencv_version()
    current = _find_current(listing, cache_root / cache_name, recipe, sizes, opencv_version)
    if len(current) == len(sizes):
        _print_unchanged(current, len(listing.records), time.perf_counter() - started_s, as_json)
        return
    # Loaded only when there is work: OpenCV, HDF5 and joblib would triple the time of a build with nothing to do.
    from cli.ldata.build_work import BuildRequest, build_and_report

    request = BuildRequest(
        listing=listing,
        name=cache_name,
        cache_root=cache_root,
        recipe=recipe,
        sizes_px=sizes,
        opencv_version=opencv_version,
        n_jobs=n_jobs,
        max_bad=allowed_bad(len(listing.records)) if on_error == "quarantine" else None,
        listed_at_ns=listed_at_ns,
        started_s=started_s,
    )
    build_and_report(request, as_json=as_json)


def _find_current(
    listing: SourceListing, caches: Path, recipe: Recipe, sizes_px: Sequence[int], opencv_version: str
) -> dict[Path, Manifest]:
    """The caches that hold this source in exactly this state already."""
    state = source_state(listing.classes, listing.records)
    found = {}
    for size_px in sizes_px:
        directory = caches / cache_dir_name(size_px, cache_fingerprint(recipe, size_px, opencv_version))
        manifest = find_current(directory, state)
        if manifest is not None:
            found[directory] = manifest
    return found


def _check_name(name: str) -> None:
    if not _CACHE_NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: use letters, digits, dot, dash and underscore, starting with a letter or digit"
        )


def _parse_max_bad(text: str) -> Callable[[int], int]:
    """From the number of all images to the number that may be bad."""
    match = _MAX_BAD.fullmatch(text.strip())
    if match is None or (match[1] is not None and float(match[1]) > 100):
        raise UsageError(f"--max-bad {text!r}: give a number of images such as 20, or a share such as 5%")
    share, count = match.groups()
    return lambda num_images: int(count) if count is not None else int(float(share) / 100 * num_images)


def _print_unchanged(manifests: dict[Path, Manifest], num_images: int, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "changed": False,
                "num_images": num_images,
                "num_processed": 0,
                "seconds": round(seconds, 3),
                "caches": [cache_summary(directory, manifest) for directory, manifest in manifests.items()],
            }
        )
        return
    click.echo(f"Nothing to do: {num_images:,} images unchanged ({seconds:.2f} s)")
    for line in cache_lines(list(manifests.items())):
        click.echo(line)
