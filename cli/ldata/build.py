"""``ldata build``: from images to caches."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import click

from cli.ldata.wanted_caches import ListedSource, WantedCaches, print_unchanged
from cli.options import (
    DEFAULT_CACHE_ROOT,
    allow_outside_option,
    cache_location_option,
    json_option,
    recipe_option,
    root_option,
    source_argument,
)
from cli.output import print_note
from cli.source_choice import SAMPLE_CACHE_NAME, announce_source, choose_source
from cli.stage_options import StageChoice, stage_dir_option
from leukemia_data.errors import UsageError
from leukemia_data.recipes.recipe import Recipe, load_recipe
from leukemia_data.samples.fingerprint import installed_opencv_version
from leukemia_data.samples.record import ImagePlace
from leukemia_data.sources.source import list_source
from leukemia_data.storage.url import Location

_MAX_BAD = re.compile(r"(\d+(?:\.\d+)?)%|(\d+)")
_CACHE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.command("build")
@source_argument
@click.option(
    "--size", "sizes_px", type=int, multiple=True, help="Side of the cached images in px, repeatable.  [default: 224]"
)
@recipe_option
@cache_location_option
@stage_dir_option
@click.option("--name", help="Name of the cache (default: that of the source's folder).")
@root_option
@allow_outside_option
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
@click.option(
    "--wait", is_flag=True, help="Wait while another build or gc works on the same cache, instead of leaving."
)
@json_option
def command(
    source: tuple[ImagePlace, ...],
    sizes_px: tuple[int, ...],
    recipe_name: str,
    cache_root: Location,
    stage_dir: Path | None,
    name: str | None,
    root: ImagePlace | None,
    allow_outside: bool,
    n_jobs: int,
    on_error: str,
    max_bad: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Preprocess the images of SOURCE into one cache per --size.

    SOURCE is a C-NMC folder in any published layout, any folder with one folder per class, or CSV tables with columns
    Path[,label[,subject[,split]]]; either may lie in an object store (s3://, gs://, az://). Without SOURCE:
    $LDATA_SOURCE, else ./data, else a built-in sample of generated cells. Building again costs only what is new or
    changed; a build that was stopped goes on where it stopped.

    \b
    Examples:
      ldata build C-NMC_Leukemia --size 128 --size 224
      ldata build train.csv valid.csv resnet_18_test.csv --root lab3 --name lab
      ldata build my-cells --recipe raw --on-error quarantine --max-bad 20
      ldata build my-cells --wait
      ldata build s3://bucket/C-NMC_Leukemia --cache s3://bucket/caches --size 224
    """
    started_s = time.perf_counter()
    recipe = load_recipe(recipe_name)
    sizes = tuple(dict.fromkeys(sizes_px)) or (224,)
    for size_px in sizes:
        recipe.check_size(size_px)
    allowed_bad = _parse_max_bad(max_bad)
    if n_jobs == 0:
        raise UsageError("--n-jobs 0: give a number of processes, or -1 for one per core")
    if name is not None:
        _check_name(name)
    choice = choose_source(source, os.environ, cache_root if isinstance(cache_root, Path) else DEFAULT_CACHE_ROOT)
    announce_source(choice)
    wanted = _wanted_caches(cache_root, stage_dir, recipe, sizes)

    def list_now() -> ListedSource:
        commits, listed_at_ns = wanted.commits(), time.time_ns()
        return ListedSource(list_source(choice.paths, root=root, allow_outside=allow_outside), listed_at_ns, commits)

    listed = list_now()
    listing = listed.listing
    for note in listing.notes:
        print_note(f"note: {note}")
    cache_name = name or (SAMPLE_CACHE_NAME if choice.is_sample else listing.name)
    current = wanted.current(cache_name, listing)
    if len(current) == len(sizes):
        print_unchanged(current, len(listing.records), time.perf_counter() - started_s, as_json=as_json)
        return
    # Loaded only when there is work: OpenCV, HDF5 and joblib would triple the time of a build with nothing to do.
    from cli.ldata.build_work import BuildRequest, build_and_report

    request = BuildRequest(
        listed=listed,
        list_now=list_now,
        name=cache_name,
        wanted=wanted,
        n_jobs=n_jobs,
        allowed_bad=allowed_bad if on_error == "quarantine" else None,
        started_s=started_s,
        wait=wait,
    )
    build_and_report(request, as_json=as_json)


def _wanted_caches(
    cache_root: Location, stage_dir: Path | None, recipe: Recipe, sizes_px: tuple[int, ...]
) -> WantedCaches:
    opencv_version = installed_opencv_version()
    if isinstance(cache_root, Path):
        return WantedCaches(cache_root, recipe, sizes_px, opencv_version)
    # Loads fsspec, which takes as long as all of a build with nothing to do.
    from cli.ldata.stored_caches import stored_caches

    stage = StageChoice(stage_dir).open().directory
    return stored_caches(cache_root, stage, recipe, sizes_px, opencv_version)


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
