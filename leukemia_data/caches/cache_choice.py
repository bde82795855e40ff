"""Of several caches the one that is meant: by the side of its images, its recipe's name, or because it is alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from leukemia_data.caches.manifest import Manifest
from leukemia_data.errors import CacheError, UsageError

Place = TypeVar("Place")


def choose_only(
    found: Sequence[Place],
    read: Callable[[Place], Manifest],
    *,
    where: object,
    size_px: int | None,
    recipe: str | None,
    cure: str,
) -> Place:
    """The only one of the caches that were found which matches.

    Parameters
    ----------
    found
        Where caches lie: directories, or addresses.
    read
        Reads the manifest of one.
    where
        At which they were looked for, for messages.
    size_px, recipe
        Side of its images, and name of its recipe; None where that does not matter.
    cure
        What to do if there is none.

    Raises
    ------
    UsageError
        If several match; the message lists them.
    CacheError
        If none does.
    """
    is_free = size_px is None and recipe is None
    fitting = (
        found if len(found) == 1 and is_free else [place for place in found if _fits(place, read, size_px, recipe)]
    )
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = "".join(f"\n  {place}" for place in fitting)
        raise UsageError(f"several caches at {where}, name one:{choices}")
    wanted = "cache" + (f" of {size_px} px" if size_px is not None else "") + (f" of recipe {recipe}" if recipe else "")
    others = f" (there are: {', '.join(map(str, found))})" if found else ""
    raise CacheError(f"no {wanted} at {where}{others}; {cure}")


def _fits(place: Place, read: Callable[[Place], Manifest], size_px: int | None, recipe: str | None) -> bool:
    """Whether such a cache lies there that is readable; a damaged neighbour shall not hide the others."""
    try:
        manifest = read(place)
    except CacheError:
        return False
    return size_px in (None, manifest.size_px) and recipe in (None, manifest.recipe.name)
