"""Build caches of images: the whole of ``ldata build``, as a function.

A build with nothing to do takes 0.2 s: OpenCV, HDF5 and joblib, which would triple that, are imported only when needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from leukemia_data.building.build_request import DEFAULT_RECIPE, DEFAULT_SIZES_PX, BuildRequest, BuildSummary, MaxBad
from leukemia_data.building.engine import EngineChoice
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.operations.recipe import Recipe
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source_choice import DEFAULT_CACHE_ROOT, SourceChoice
from leukemia_data.stores.url import Location


def build_caches(
    sources: SourceChoice | Sequence[ImagePlace],
    *,
    engine: str = "local",
    address: str | None = None,
    n_jobs: int = -1,
    on_error: str = "fail",
    max_bad: int | str = "5%",
    sizes_px: Sequence[int] = DEFAULT_SIZES_PX,
    recipe: str | Recipe = DEFAULT_RECIPE,
    cache_root: Location = DEFAULT_CACHE_ROOT,
    name: str | None = None,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    reading: ReadingOptions | None = None,
    codec: str | None = None,
    shard_size: int | str | None = None,
    wait: bool = False,
    recheck: bool = False,
    copies_dir: Path | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    console: Console = NULL_CONSOLE,
) -> BuildSummary:
    """Preprocess new and changed images into one cache per size.

    The bytes depend on the images, `sizes_px`, `recipe`, `codec` and `shard_size` alone. Parameters are those
    of :class:`.EngineChoice`, :meth:`.MaxBad.parse` and :meth:`.BuildRequest.of`.

    Raises
    ------
    UsageError, SourceError
        If arguments are wrong, or the images cannot be read as a source of labelled images in one way.
    BuildError, CacheError, StorageError
        If the caches cannot be built; earlier ones stay.
    """
    chosen_engine, allowed_bad = EngineChoice(engine, address, n_jobs), MaxBad.parse(on_error, max_bad)
    request = BuildRequest.of(
        sources,
        sizes_px=sizes_px,
        recipe=recipe,
        cache_root=cache_root,
        name=name,
        root=root,
        allow_outside=allow_outside,
        reading=reading,
        codec=codec,
        shard_size=shard_size,
        wait=wait,
        recheck=recheck,
        copies_dir=copies_dir,
        clock_ns=clock_ns,
        console=console,
    )
    listed = request.list_first()
    unchanged = request.unchanged(listed.listing)
    if unchanged is not None:
        return unchanged
    from leukemia_data.building.listed_build import build_listed

    return build_listed(request, listed, chosen_engine, allowed_bad)
