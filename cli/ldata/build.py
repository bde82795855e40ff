"""``ldata build``: from images to caches."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import click

from cli.ldata.beside_plan import check_beside_plan, plan_option, task_option
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
from cli.reading_options import reading_options
from cli.source_choice import SAMPLE_CACHE_NAME, announce_source, choose_source
from cli.stage_options import stage_dir_option
from leukemia_data.caches.codec import CODECS
from leukemia_data.caches.manifest import CAPACITY_BY_COUNT
from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.errors import UsageError
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.records.fingerprint import installed_opencv_version
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source
from leukemia_data.stores.url import Location

_MAX_BAD = re.compile(r"(\d+(?:\.\d+)?)%|(\d+)")
_CACHE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


sizes_option = click.option(
    "--size", "sizes_px", type=int, multiple=True, help="Side of the cached images in px, repeatable.  [default: 224]"
)
name_option = click.option("--name", help="Name of the cache (default: that of the source's folder).")
on_error_option = click.option(
    "--on-error",
    type=click.Choice(["fail", "quarantine"]),
    default="fail",
    show_default=True,
    help="Unusable images: stop, or leave them out and list them.",
)
max_bad_option = click.option(
    "--max-bad", default="5%", show_default=True, help="With quarantine: fail when more images than N or P% are bad."
)
shard_size_option = click.option(
    "--shard-size",
    metavar="N|auto",
    help="Images a shard holds at the most; auto: as many as suit their number. Kept for later builds.",
)
codec_option = click.option(
    "--codec",
    type=click.Choice(CODECS.names()),
    help="How to store the pixels: raw, or compressed without loss.  [default: as the cache is, raw for a new one]",
)
wait_option = click.option(
    "--wait", is_flag=True, help="Wait while another build or gc works on the same cache, instead of leaving."
)
recheck_option = click.option(
    "--recheck",
    is_flag=True,
    help="Read every file, also those that look as they did at the last build, and let their digests decide.",
)


@click.command("build")
@source_argument
@sizes_option
@recipe_option
@cache_location_option
@stage_dir_option
@name_option
@root_option
@allow_outside_option
@reading_options
@click.option(
    "--n-jobs", default=-1, show_default=True, help="Worker processes; -1 means one per core. Never changes a byte."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "dask", "ray"]),
    default="local",
    show_default=True,
    help="What runs the work: processes of this machine, or a Dask or Ray cluster. Never changes a byte.",
)
@click.option(
    "--address",
    help="Cluster to use: HOST:PORT, tcp://HOST:PORT or a scheduler file (.json) of Dask; auto, HOST:PORT or "
    "ray://HOST:PORT of Ray. Without it, a cluster of --n-jobs workers on this machine that ends with the build.",
)
@on_error_option
@max_bad_option
@shard_size_option
@codec_option
@wait_option
@recheck_option
@plan_option
@task_option
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
    reading: ReadingOptions,
    n_jobs: int,
    engine: str,
    address: str | None,
    on_error: str,
    max_bad: str,
    shard_size: str | None,
    codec: str | None,
    wait: bool,
    recheck: bool,
    plan_path: Path | None,
    share: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Preprocess the images of SOURCE into one cache per --size.

    SOURCE is a C-NMC folder in any published layout, any folder with one folder per class, or CSV tables with columns
    Path[,label[,subject[,split]]]; either may lie in an object store (s3://, gs://, az://). Without SOURCE:
    $LDATA_SOURCE, else ./data, else a built-in sample of generated cells. How SOURCE was understood is printed first;
    what can be read in several ways is refused with the options that choose (`ldata scan` shows all). Building again
    costs only what is new or changed; a build that was stopped goes on where it stopped.

    \b
    Examples:
      ldata build C-NMC_Leukemia --size 128 --size 224
      ldata build train.csv valid.csv resnet_18_test.csv --root lab3 --name lab
      ldata build my-cells --recipe raw --on-error quarantine --max-bad 20
      ldata build ALL-four-classes --class-level 2 --exclude Segmented --recipe photo
      ldata build my-cells --codec zstd --shard-size 1024 --wait
      ldata build s3://bucket/C-NMC_Leukemia --cache s3://bucket/caches --size 224
      ldata build my-cells --engine dask --address tcp://head:8786
      ldata build --plan cells.plan --task 3/40
    """
    started_s = time.perf_counter()
    check_engine(engine, address, n_jobs)
    if plan_path is not None or share is not None:
        _make_share(plan_path, share, engine, address, n_jobs, as_json)
        return
    allowed_bad = parse_max_bad(max_bad)
    wanted = choose_caches(cache_root, stage_dir, recipe_name, sizes_px, shard_size, codec)
    sample_root = cache_root if isinstance(cache_root, Path) else DEFAULT_CACHE_ROOT
    listed, list_now, cache_name = list_choice(source, wanted, name, root, allow_outside, reading, sample_root)
    current = {} if recheck else wanted.current(cache_name, listed.listing)
    if len(current) == len(wanted.sizes_px):
        print_unchanged(current, len(listed.listing.records), time.perf_counter() - started_s, as_json=as_json)
        return
    # Loaded only when there is work: OpenCV, HDF5 and joblib would triple the time of a build with nothing to do.
    from cli.ldata.build_work import BuildRequest, build_and_report
    from cli.ldata.engine_choice import EngineChoice

    request = BuildRequest(
        listed=listed,
        list_now=list_now,
        name=cache_name,
        wanted=wanted,
        engine=EngineChoice(engine, address, n_jobs),
        allowed_bad=allowed_bad if on_error == "quarantine" else None,
        started_s=started_s,
        wait=wait,
        recheck=recheck,
    )
    build_and_report(request, as_json=as_json)


def _make_share(
    plan_path: Path | None,
    share: tuple[int, int] | None,
    engine: str,
    address: str | None,
    n_jobs: int,
    as_json: bool,
) -> None:
    check_beside_plan(click.get_current_context())
    from cli.ldata.share_work import make_share

    make_share(plan_path, share, engine, address, n_jobs, as_json=as_json)


def choose_caches(
    cache_root: Location,
    stage_dir: Path | None,
    recipe_name: str,
    sizes_px: tuple[int, ...],
    shard_size: str | None,
    codec: str | None,
) -> WantedCaches:
    """The caches that a recipe and sizes mean, of whichever name, and how their shards shall be laid out."""
    recipe = load_recipe(recipe_name)
    sizes = tuple(dict.fromkeys(sizes_px)) or (224,)
    for size_px in sizes:
        recipe.check_size(size_px)
    shard_capacity = None if shard_size is None else _parse_shard_size(shard_size)
    opencv_version = installed_opencv_version()
    if isinstance(cache_root, Path):
        return WantedCaches(cache_root, recipe, sizes, opencv_version, shard_capacity, codec)
    # Loads fsspec, which takes as long as all of a build with nothing to do.
    from cli.ldata.stored_caches import stored_caches

    stage = LocalCopiesChoice(stage_dir).open().directory
    return stored_caches(cache_root, stage, recipe, sizes, opencv_version, shard_capacity, codec)


def list_choice(
    source: tuple[ImagePlace, ...],
    wanted: WantedCaches,
    name: str | None,
    root: ImagePlace | None,
    allow_outside: bool,
    reading: ReadingOptions,
    sample_root: Path,
) -> tuple[ListedSource, Callable[[], ListedSource], str]:
    """The chosen source as it is listed now, how to list it anew, and the name of its caches.

    Without a source, a sample of generated cells is made in `sample_root`.
    """
    if name is not None:
        _check_name(name)
    choice = choose_source(source, os.environ, sample_root)
    announce_source(choice)

    def list_now() -> ListedSource:
        commits, listed_at_ns = wanted.commits(), time.time_ns()
        listing = list_source(choice.paths, root=root, allow_outside=allow_outside, options=reading)
        return ListedSource(listing, listed_at_ns, commits)

    listed = list_now()
    return listed, list_now, name or (SAMPLE_CACHE_NAME if choice.is_sample else listed.listing.name)


def check_engine(engine: str, address: str | None, n_jobs: int) -> None:
    """Refuse options that contradict each other."""
    if n_jobs == 0:
        raise UsageError("--n-jobs 0: give a number of processes, or -1 for one per core")
    if address is not None and engine == "local":
        raise UsageError(f"--address {address}: say whose address it is with --engine dask or --engine ray")
    if address is not None and engine == "dask" and n_jobs != -1:
        raise UsageError("--n-jobs with --address: a Dask cluster has the workers that were started for it")


def _check_name(name: str) -> None:
    if not _CACHE_NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r}: use letters, digits, dot, dash and underscore, starting with a letter or digit"
        )


def _parse_shard_size(text: str) -> int:
    if text == "auto":
        return CAPACITY_BY_COUNT
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) == 0:
        raise UsageError(f"--shard-size {text!r}: give a number of images from 1 to 999999, or auto")
    return int(text)


def parse_max_bad(text: str) -> Callable[[int], int]:
    """From the number of all images to the number that may be bad."""
    match = _MAX_BAD.fullmatch(text.strip())
    if match is None or (match[1] is not None and float(match[1]) > 100):
        raise UsageError(f"--max-bad {text!r}: give a number of images such as 20, or a share such as 5%")
    share, count = match.groups()
    return lambda num_images: int(count) if count is not None else int(float(share) / 100 * num_images)
