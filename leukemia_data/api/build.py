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
    from leukemia_data.sources.sample_set import SampleSummary


def write_sample(
    folder: Place, *, subjects: int = 24, cells: int = 20, classes: int = 2, seed: int = 0
) -> SampleSummary:
    """Write generated images below a folder, `cells` of each of so many `subjects`; nothing medical is in them.

    Two `classes` look like those of C-NMC 2019, up to 20 are made-up kinds.
    """
    from leukemia_data.sources.sample_set import write_sample as write

    return write(
        as_path(folder, "folder"), num_subjects=subjects, cells_per_subject=cells, num_classes=classes, seed=seed
    )


def scan(
    *sources: Place,
    recipe: str | Recipe = "report-a",
    root: Place | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
) -> Scan:
    """Return how images are read as a source, their frames by class and the effect of a recipe on them.

    Parameters
    ----------
    sources
        Folders and CSV tables of images.
    recipe
        A preset's name, a TOML file or a recipe.
    root, allow_outside
        Folder that the tables' paths start from, and whether they may lead out of it.
    reading
        Classes, subjects and columns, where they are not clear by themselves.
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
    """Draw `per_class` images of each class: raw and after every step of a recipe, or under the recipes to `compare`.

    Parameters
    ----------
    sources, root, allow_outside, reading
        As for :func:`scan`.
    out
        PNG file to write.
    sizes
        Sides in px to show; by default 128 and 224, or 224 to compare.
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
        Folder or address of all caches.
    recipe
        A preset's name, a TOML file or a recipe.
    name
        Of the caches; by default that of the source's folder.
    codec
        ``raw`` or ``zstd``; by default that of an existing cache.
    shard_size
        Maximal images per file, or ``auto``.
    engine, address, n_jobs
        ``local``, ``dask`` or ``ray``, the address of a cluster, the number of worker processes (-1: one per core).
    on_error, max_bad
        ``fail`` or ``quarantine`` for unusable images, and how many, or which fraction, may be quarantined.
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
    """Make a job file's shards of part `share`, from 1, of `num_shares`; idempotent, and safe to run twice at once.

    `n_jobs` is the number of worker processes on this machine, -1 for one per core.
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
