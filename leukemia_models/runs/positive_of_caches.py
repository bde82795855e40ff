"""The positive class of a run: the caches of its stages in, one choice out."""

from __future__ import annotations

from collections.abc import Sequence

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import UsageError
from leukemia_data.sources.positive_class import PositiveClass, require_positive


def positive_of_caches(caches: Sequence[Cache], asked: str | None = None) -> PositiveClass:
    """Return the class that is asked for, else that of the caches' manifests, else the one that the names tell.

    Parameters
    ----------
    caches : sequence of Cache
        Of the same two classes; one or more.
    asked : str, optional
        What ``--positive`` says.

    Raises
    ------
    UsageError
        If `asked` is none of the classes, nothing tells, or the caches say different classes.
    """
    chosen = [_of_cache(cache, asked) for cache in caches]
    for cache, other in zip(caches[1:], chosen[1:], strict=True):
        if other.name != chosen[0].name:
            raise UsageError(
                f"the positive class of {caches[0].location} is {chosen[0].name}, that of {cache.location} is "
                f"{other.name}: say with --positive which one is meant"
            )
    return chosen[0]


def _of_cache(cache: Cache, asked: str | None) -> PositiveClass:
    reading = cache.manifest.understood
    return require_positive(cache.manifest.classes, asked, built_with=None if reading is None else reading.positive)
