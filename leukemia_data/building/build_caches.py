"""Build caches of images: the whole of ``ldata build``, as a function.

A build with nothing to do takes 0.2 s: OpenCV, HDF5 and joblib, which would triple that, are imported only when needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from leukemia_data.building.build_request import BuildRequest, BuildSummary, MaxBad, RequestOptions
from leukemia_data.building.engine import LOCAL, EngineChoice
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.source_choice import SourceChoice


class BuildOptions(RequestOptions, total=False):
    """Keyword arguments of :func:`build_caches`."""

    engine: str
    address: str | None
    n_jobs: int
    on_error: str
    max_bad: int | str


def build_caches(
    sources: SourceChoice | Sequence[ImagePlace],
    *,
    engine: str = LOCAL,
    address: str | None = None,
    n_jobs: int = -1,
    on_error: str = "fail",
    max_bad: int | str = "5%",
    **options: Unpack[RequestOptions],
) -> BuildSummary:
    """Preprocess new and changed images into one cache per size.

    The bytes depend on the images, ``sizes_px``, ``recipe``, ``codec`` and ``shard_size`` alone. Parameters are those
    of :class:`.EngineChoice`, :meth:`.MaxBad.parse` and :meth:`.BuildRequest.of`.

    Raises
    ------
    UsageError, SourceError
        If arguments are wrong, or the images cannot be read as a source of labelled images in one way.
    BuildError, CacheError, StorageError
        If the caches cannot be built; earlier ones stay.
    """
    chosen_engine, allowed_bad = EngineChoice(engine, address, n_jobs), MaxBad.parse(on_error, max_bad)
    request = BuildRequest.of(sources, **options)
    listed = request.list_first()
    unchanged = request.unchanged(listed.listing)
    if unchanged is not None:
        return unchanged
    from leukemia_data.building.listed_build import build_listed

    return build_listed(request, listed, chosen_engine, allowed_bad)
