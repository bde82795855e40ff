"""Caches: opened, listed, described, verified, repaired and copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukemia_data.api.arguments import (
    CachePlace,
    Place,
    as_image_place,
    as_location,
    as_optional_path,
    as_path,
    as_root,
    console_of,
    place_of,
)

if TYPE_CHECKING:
    from leukemia_data.augmenting.preview import AugmentationPreview
    from leukemia_data.building.garbage import CollectReport
    from leukemia_data.building.repair import ConvertReport, RepairReport
    from leukemia_data.caches.cache import Cache
    from leukemia_data.caches.opening import FoundCache, LocalCopiesChoice
    from leukemia_data.caches.summary import CacheStatistics
    from leukemia_data.caches.transfer import CopyReport
    from leukemia_data.caches.verify import VerifyReport
    from leukemia_data.console import Console


def open_cache(
    location: Place = "cache",
    *,
    size: int | None = None,
    recipe: str | None = None,
    copies: LocalCopiesChoice | None = None,
) -> Cache:
    """Open the cache at a folder or an address, or the only one below it.

    Parameters
    ----------
    size, recipe
        Side of the images in px and name of the recipe, to choose among several caches.
    copies
        Location of local copies of a cache at an address.
    """
    from leukemia_data.caches.opening import DEFAULT_COPIES, open_chosen_cache

    place = as_location(location, "location")
    return open_chosen_cache(place, copies or DEFAULT_COPIES, size_px=size, recipe=recipe)


def list_caches(location: Place = "cache", *, verbose: bool | Console = False) -> list[FoundCache]:
    """Find the caches at a place or up to two folders below it, without opening them."""
    from leukemia_data.caches.opening import list_caches as list_found

    return list_found(as_location(location, "location"), console=console_of(verbose))


def statistics(
    cache: CachePlace,
    *,
    split: str | None = None,
    seed: int = 0,
    size: int | None = None,
    verbose: bool | Console = False,
) -> CacheStatistics:
    """Count images, classes and subjects of a cache and its parts, with exact mean and standard deviation.

    For `split` and `seed` see :meth:`Cache.split <leukemia_data.caches.cache.Cache.split>`; ``all`` is no split, None
    the subject split where the cache allows it. `size` chooses among several caches.
    """
    from leukemia_data.caches.summary import cache_statistics

    return cache_statistics(_as_cache(cache, size), split, seed, console=console_of(verbose))


def describe(cache: CachePlace, *, size: int | None = None) -> dict[str, object]:
    """Return a cache's classes, recipe, source, files and makers as JSON values."""
    from leukemia_data.caches.summary import describe_cache

    return describe_cache(_as_cache(cache, size))


def verify(
    cache: CachePlace, *, quick: bool = False, size: int | None = None, verbose: bool | Console = False
) -> VerifyReport:
    """Check every file and image of a cache against its digests; `quick` reads no pixels.

    The report's ``damages`` name what is damaged; nothing is raised for it.
    """
    from leukemia_data.caches.verify import verify as verify_cache

    return verify_cache(place_of(cache), quick=quick, size_px=size, console=console_of(verbose))


def repair(
    cache: CachePlace,
    *sources: Place,
    root: Place | None = None,
    allow_outside: bool = False,
    size: int | None = None,
    verbose: bool | Console = False,
) -> RepairReport:
    """Rebuild damaged files of a cache, byte for byte: from what is intact in them, else from the sources."""
    from leukemia_data.building.repair import repair as repair_found

    return repair_found(
        place_of(cache),
        [as_image_place(place, "sources") for place in sources],
        root=as_root(root),
        allow_outside=allow_outside,
        size_px=size,
        console=console_of(verbose),
    )


def convert(
    cache: CachePlace,
    codec: str = "zstd",
    *,
    out: Place | None = None,
    size: int | None = None,
    verbose: bool | Console = False,
) -> ConvertReport:
    """Store a cache's pixels by another codec, ``raw`` or ``zstd``: in a new folder `out`, or in place."""
    from leukemia_data.building.repair import convert as convert_found

    target = as_optional_path(out, "out")
    return convert_found(place_of(cache), codec, out=target, size_px=size, console=console_of(verbose))


def collect_garbage(location: Place = "cache", *, remove: bool = False) -> CollectReport:
    """Find files below a place that no cache needs, left by builds that stopped; `remove` deletes them."""
    from leukemia_data.building.garbage import collect_garbage as collect

    return collect(as_location(location, "location"), remove=remove)


def push(
    cache: CachePlace, folder: Place, *, size: int | None = None, verify: bool = False, verbose: bool | Console = False
) -> CopyReport:
    """Copy the missing files of a cache to a store; `verify` reads those that were there before."""
    from leukemia_data.caches.transfer import push as push_found

    place = as_path(place_of(cache), "cache")
    return push_found(place, as_location(folder, "folder"), size_px=size, verify=verify, console=console_of(verbose))


def pull(
    cache: CachePlace, folder: Place = "cache", *, size: int | None = None, verbose: bool | Console = False
) -> CopyReport:
    """Copy the missing files of a cache from a store to a folder of caches."""
    from leukemia_data.caches.transfer import pull as pull_found

    return pull_found(place_of(cache), as_path(folder, "folder"), size_px=size, console=console_of(verbose))


def preview_augmentation(
    cache: CachePlace,
    augment: str = "flips",
    *,
    out: Place = "augmented.png",
    per_class: int = 3,
    epochs: int = 8,
    seed: int = 0,
    size: int | None = None,
    verbose: bool | Console = False,
) -> AugmentationPreview:
    """Draw `per_class` images of each class as they are cached, and as the first epochs of a training show them.

    Parameters
    ----------
    augment
        A preset's name, or a TOML file.
    out
        PNG file to write.
    seed
        Of the training.
    """
    from leukemia_data.augmenting.preview import preview_augmentation as draw

    return draw(
        _as_cache(cache, size),
        augment,
        as_path(out, "out"),
        per_class=per_class,
        epochs=epochs,
        seed=seed,
        console=console_of(verbose),
    )


def _as_cache(cache: CachePlace, size: int | None) -> Cache:
    from leukemia_data.caches.cache import Cache

    return cache if isinstance(cache, Cache) else open_cache(cache, size=size)
