"""From images to caches: generated cells, a look before a build, builds and their job files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leukemia_data.api.arguments import (
    Place,
    as_location,
    as_path,
    as_recipe,
    as_root,
    as_sizes,
    as_sources,
    console_of,
)

if TYPE_CHECKING:
    from leukemia_data.building.build_request import BuildSummary
    from leukemia_data.building.jobs import JobPlan, ShareSummary
    from leukemia_data.caches.cache import Cache
    from leukemia_data.console import Console
    from leukemia_data.operations.recipe import Recipe
    from leukemia_data.scanning.preview import Preview
    from leukemia_data.scanning.scan import Scan
    from leukemia_data.sources.reading_options import ReadingOptions
    from leukemia_data.sources.sample_cells import SampleSummary


def write_sample(folder: Place, *, subjects: int = 24, cells: int = 20, seed: int = 0) -> SampleSummary:
    """Write generated cells below a folder, to try everything without the real images; nothing medical is in them.

    Parameters
    ----------
    folder
        Created where it is absent.
    subjects, cells
        How many people, and cells of each.
    seed
        Other cells for another one.
    """
    from leukemia_data.sources.sample_cells import write_sample as write

    return write(as_path(folder, "folder"), num_subjects=subjects, cells_per_subject=cells, seed=seed)


def scan(
    *sources: Place,
    recipe: str | Recipe = "report-a",
    root: Place | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
) -> Scan:
    """Look at images before a build: how they are understood, their frames by class, which recipe suits.

    Parameters
    ----------
    sources
        Folders and CSV tables of images.
    recipe
        Recipe whose effect on the frames is computed: a preset's name, a TOML file or a recipe.
    root, allow_outside
        Folder that the tables' paths start from, and whether they may lead out of it.
    reading
        How the source is read where it does not tell by itself.
    """
    from leukemia_data.scanning.scan import scan as scan_source

    return scan_source(
        as_sources(sources), as_recipe(recipe), root=as_root(root), allow_outside=allow_outside, options=reading
    )


def preview(
    *sources: Place,
    out: Place = "preview.png",
    recipe: str | Recipe = "report-a",
    compare: Sequence[str | Recipe] = (),
    sizes: int | Sequence[int] = (),
    per_class: int = 3,
    root: Place | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    verbose: bool | Console = False,
) -> Preview:
    """Draw a few images of each class, raw and after every step of a recipe, or under several recipes side by side.

    Parameters
    ----------
    sources, root, allow_outside, reading
        As for :func:`scan`.
    out
        PNG file to write.
    recipe
        Whose steps are shown.
    compare
        Recipes to lay side by side instead.
    sizes
        Sides in px to show; 128 and 224 where none is given, 224 to compare.
    per_class
        Images of each class.
    """
    from leukemia_data.scanning.preview import preview as draw

    return draw(
        as_sources(sources),
        [as_recipe(each) for each in compare or (recipe,)],
        as_path(out, "out"),
        compare=bool(compare),
        sizes_px=as_sizes(sizes),
        per_class=per_class,
        root=as_root(root),
        allow_outside=allow_outside,
        reading=reading,
        console=console_of(verbose),
    )


def build(
    *sources: Place,
    sizes: int | Sequence[int] = 224,
    cache: Place = "cache",
    recipe: str | Recipe = "report-a",
    name: str | None = None,
    codec: str | None = None,
    shard_size: int | str | None = None,
    engine: str = "local",
    address: str | None = None,
    n_jobs: int = -1,
    on_error: str = "fail",
    max_bad: int | str = "5%",
    wait: bool = False,
    recheck: bool = False,
    root: Place | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    verbose: bool | Console = False,
) -> list[Cache]:
    """Preprocess images into one cache a size, only what is new or changed, and open the caches.

    Parameters
    ----------
    sources, root, allow_outside, reading
        As for :func:`scan`.
    sizes
        Side of the cached squares in px, or several sides.
    cache
        Folder or address below which the caches lie.
    recipe
        What is done to each image: a preset's name, a TOML file or a recipe.
    name
        Of the caches; by default that of the source's folder.
    codec
        ``raw`` or ``zstd``; by default what the cache has.
    shard_size
        Images a file holds at the most, or ``auto``.
    engine, address, n_jobs
        What runs the work (``local``, ``dask``, ``ray``), the address of a cluster, the number of worker processes.
    on_error, max_bad
        ``fail`` or ``quarantine`` for images that cannot be used, and how many, or which share, may be.
    wait
        Wait for another build of the same caches instead of raising.
    recheck
        Read every file again, also those that look unchanged.

    Returns
    -------
    list of Cache
        In the order of `sizes`.
    """
    from leukemia_data.building.build_caches import build_caches

    summary = build_caches(
        as_sources(sources),
        sizes_px=as_sizes(sizes),
        recipe=recipe,
        cache_root=as_location(cache, "cache"),
        name=name,
        codec=codec,
        shard_size=shard_size,
        engine=engine,
        address=address,
        n_jobs=n_jobs,
        on_error=on_error,
        max_bad=max_bad,
        wait=wait,
        recheck=recheck,
        root=as_root(root),
        allow_outside=allow_outside,
        reading=reading,
        console=console_of(verbose),
    )
    return _opened(summary)


def plan_jobs(
    *sources: Place,
    path: Place,
    sizes: int | Sequence[int] = 224,
    cache: Place = "cache",
    recipe: str | Recipe = "report-a",
    name: str | None = None,
    codec: str | None = None,
    shard_size: int | str | None = None,
    root: Place | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    verbose: bool | Console = False,
) -> JobPlan:
    """Plan a build as a job file, of which many machines make parts independently.

    The arguments are those of :func:`build`; `path` is the file to write.
    """
    from leukemia_data.building.build_request import BuildRequest
    from leukemia_data.building.jobs import plan_jobs as plan

    request = BuildRequest.of(
        as_sources(sources),
        sizes_px=as_sizes(sizes),
        recipe=recipe,
        cache_root=as_path(cache, "cache").absolute(),
        name=name,
        codec=codec,
        shard_size=shard_size,
        root=as_root(root),
        allow_outside=allow_outside,
        reading=reading,
        console=console_of(verbose),
    )
    return plan(request, as_path(path, "path").absolute())


def run_job(
    path: Place, share: int, num_shares: int, *, n_jobs: int = -1, verbose: bool | Console = False
) -> ShareSummary:
    """Make one part of a job file's shards; idempotent, and safe to run several times at once.

    Parameters
    ----------
    path
        The job file.
    share, num_shares
        Which share, from 1, of how many.
    n_jobs
        Worker processes on this machine, -1 for one a core.
    """
    from leukemia_data.building.engine import LOCAL, EngineChoice
    from leukemia_data.building.jobs import run_job as run

    return run(as_path(path, "path"), share, num_shares, EngineChoice(LOCAL, None, n_jobs), console_of(verbose))


def commit_jobs(
    path: Place,
    *,
    on_error: str = "fail",
    max_bad: int | str = "5%",
    wait: bool = False,
    verbose: bool | Console = False,
) -> list[Cache]:
    """Commit the caches of a job file, when all parts are made, and open them; see :func:`build`."""
    from leukemia_data.building.jobs import commit_jobs as commit

    return _opened(
        commit(as_path(path, "path"), on_error=on_error, max_bad=max_bad, wait=wait, console=console_of(verbose))
    )


def _opened(summary: BuildSummary) -> list[Cache]:
    from leukemia_data.caches.opening import DEFAULT_COPIES, open_chosen_cache

    return [open_chosen_cache(built.directory, DEFAULT_COPIES) for built in summary.caches]
