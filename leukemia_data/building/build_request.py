"""The request of a build, and whether there is anything to do. Loads neither NumPy nor OpenCV."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict, Unpack

from leukemia_data.caches.manifest import (
    CAPACITY_BY_COUNT,
    MANIFEST_NAME,
    Manifest,
    QuarantinedImage,
    cache_dir_name,
    find_current,
    source_state,
)
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import UsageError
from leukemia_data.operations.recipe import Recipe, load_recipe
from leukemia_data.records.fingerprint import cache_fingerprint, installed_opencv_version
from leukemia_data.records.record import ImagePlace
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source
from leukemia_data.sources.source_choice import DEFAULT_CACHE_ROOT, SourceChoice, announce_source
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.caches.remote_cache import StoredCache

DEFAULT_SIZES_PX = (224,)
DEFAULT_RECIPE = "report-a"
_MAX_BAD = re.compile(r"(\d+(?:\.\d+)?)%|(\d+)")
_CACHE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHARD_SIZE = re.compile("[0-9]{1,6}")

Commits = Mapping[Path, tuple[int, int, int]]
"""By cache directory: the manifest's identity, which each commit changes."""


@dataclass(frozen=True, slots=True)
class BuiltCache:
    """A cache after a build."""

    directory: Location
    manifest: Manifest
    num_new_shards: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What a build did.

    Attributes
    ----------
    caches
        One per size, in the order of the request.
    num_images
        Images of the source.
    num_processed, num_copied, num_kept
        Images that were decoded and preprocessed, copied from earlier shards, and in shards that were kept.
    quarantined
        Unusable images, left out of the caches.
    is_changed
        False if there was nothing to do.
    caution
        Warning about the images, if any; it was also written to the console.
    """

    caches: tuple[BuiltCache, ...]
    num_images: int
    num_processed: int = 0
    num_copied: int = 0
    num_kept: int = 0
    quarantined: tuple[QuarantinedImage, ...] = ()
    is_changed: bool = True
    caution: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return all but the caches as JSON values."""
        content: dict[str, object] = {
            "changed": self.is_changed,
            "num_images": self.num_images,
            "num_processed": self.num_processed,
        }
        if self.is_changed:
            content["num_copied"] = self.num_copied
            content["num_kept"] = self.num_kept
            content["quarantined"] = [asdict(image) for image in self.quarantined]
        return content


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source's listing, with the clock (ns since the epoch) and the caches' commits when it was begun."""

    listing: SourceListing
    listed_at_ns: int
    commits: Commits


class CachePlace(Protocol):
    """Location of caches: a folder, or an object store mirrored in one."""

    @property
    def root(self) -> Path:
        """The folder; the cache called `name` of a size is in ``root/name/<size>-<fingerprint>``."""
        ...

    def location(self, directory: Path) -> Location:
        """Return the location of the cache with this directory in the folder."""
        ...

    def find_current(self, directory: Path, state: str, suits: Callable[[Manifest], bool]) -> Manifest | None:
        """Return a complete cache's manifest if it has this source state and `suits`; else None."""
        ...

    def commits(self, dir_names: Sequence[str]) -> Commits:
        """Return the current commits of all caches in directories of these names, under any cache name."""
        ...

    def stored(self, directories: Sequence[Path]) -> Mapping[Path, StoredCache] | None:
        """Return the state of caches in an object store; None for caches in the folder."""
        ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder that holds caches; see :class:`CachePlace`."""

    root: Path

    def location(self, directory: Path) -> Location:
        """Return the directory."""
        return directory

    def find_current(self, directory: Path, state: str, suits: Callable[[Manifest], bool]) -> Manifest | None:
        """Return a complete cache's manifest if it has this source state and `suits`; else None."""
        manifest = find_current(directory, state)
        return manifest if manifest is not None and suits(manifest) else None

    def commits(self, dir_names: Sequence[str]) -> Commits:
        """Return the current commits of all caches in directories of these names."""
        found = {}
        for dir_name in dir_names:
            for path in self.root.glob(f"*/{dir_name}/{MANIFEST_NAME}"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    found[path.parent] = status.st_ino, status.st_size, status.st_mtime_ns
        return found

    def stored(self, directories: Sequence[Path]) -> None:
        """Return None: no cache is in an object store."""


class RequestFields(TypedDict, total=False):
    """Arguments that become fields of a :class:`BuildRequest` as they are."""

    name: str | None
    root: ImagePlace | None
    allow_outside: bool
    reading: ReadingOptions | None
    codec: str | None
    wait: bool
    recheck: bool
    clock_ns: Callable[[], int]
    console: Console


class RequestOptions(RequestFields, total=False):
    """Keyword arguments of :meth:`BuildRequest.of`."""

    sizes_px: Sequence[int]
    recipe: str | Recipe
    cache_root: Location
    shard_size: int | str | None
    copies_dir: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Sources, recipe and sizes of a build.

    Attributes
    ----------
    sources
        Folders and tables of images.
    place
        Location of the caches.
    recipe, sizes_px
        Preprocessing, and the sides of the cached squares in px: one cache per size.
    shard_capacity
        Maximal images per shard; :data:`~leukemia_data.caches.manifest.CAPACITY_BY_COUNT` derives it from their number,
        None keeps that of an earlier build.
    name
        Name of the caches; None for that of the source's folder.
    root, allow_outside, reading
        How tables and folders are read, see :func:`leukemia_data.sources.source.list_source`.
    codec
        How pixels are stored; None keeps the codec of an existing cache, and means raw for a new one.
    wait
        Wait for other processes that work on the same caches, instead of raising.
    recheck
        Read every file and compare digests, even if its size and times are unchanged.
    clock_ns
        Returns the time (ns since the epoch).
    console
        Receives notes, warnings and progress.
    """

    sources: SourceChoice
    place: CachePlace
    recipe: Recipe
    sizes_px: tuple[int, ...]
    shard_capacity: int | None
    name: str | None = None
    root: ImagePlace | None = None
    allow_outside: bool = False
    reading: ReadingOptions | None = None
    codec: str | None = None
    wait: bool = False
    recheck: bool = False
    clock_ns: Callable[[], int] = time.time_ns
    console: Console = NULL_CONSOLE

    @classmethod
    def of(
        cls,
        sources: SourceChoice | Sequence[ImagePlace],
        *,
        sizes_px: Sequence[int] = (),
        recipe: str | Recipe = DEFAULT_RECIPE,
        cache_root: Location = DEFAULT_CACHE_ROOT,
        shard_size: int | str | None = None,
        copies_dir: Path | None = None,
        **values: Unpack[RequestFields],
    ) -> BuildRequest:
        """Return the request for these arguments, see the attributes; raises UsageError if one is wrong.

        The default size is 224 px. `recipe` is a value, the name of a preset or the path of a recipe file;
        for `cache_root` and `copies_dir` see :func:`cache_place`, for `shard_size` :func:`parse_shard_size`.
        """
        sizes = tuple(dict.fromkeys(sizes_px)) or DEFAULT_SIZES_PX
        chosen_recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        for size_px in sizes:
            chosen_recipe.check_size(size_px)
        name = values.get("name")
        if name is not None and not _CACHE_NAME.fullmatch(name):
            raise UsageError(f"name {name!r}: use letters, digits, . - and _, a letter or digit first (`--name`)")
        return cls(
            sources=sources if isinstance(sources, SourceChoice) else SourceChoice(tuple(sources)),
            place=cache_place(cache_root, copies_dir),
            recipe=chosen_recipe,
            sizes_px=sizes,
            shard_capacity=parse_shard_size(shard_size),
            **values,
        )

    @property
    def dir_names(self) -> list[str]:
        """Names of the caches' directories, one per size."""
        opencv = installed_opencv_version()
        return [cache_dir_name(size, cache_fingerprint(self.recipe, size, opencv)) for size in self.sizes_px]

    def cache_name(self, listing: SourceListing) -> str:
        """Return the name of the caches."""
        return self.name or self.sources.cache_name or listing.name

    def directories(self, listing: SourceListing) -> list[Path]:
        """Return the directories of the caches, one per size."""
        return [self.place.root / self.cache_name(listing) / dir_name for dir_name in self.dir_names]

    def list_first(self) -> ListedSource:
        """Write a note of the source, generate the built-in sample if it is used, and list the source."""
        announce_source(self.sources, self.console)
        return self.list_now()

    def list_now(self) -> ListedSource:
        """List the source."""
        commits, listed_at_ns = self.place.commits(self.dir_names), self.clock_ns()
        listing = list_source(
            self.sources.paths, root=self.root, allow_outside=self.allow_outside, options=self.reading
        )
        return ListedSource(listing, listed_at_ns, commits)

    def unchanged(self, listing: SourceListing) -> BuildSummary | None:
        """Return the summary if the caches are up to date; else None."""
        if self.recheck:
            return None
        state = source_state(listing.classes, listing.records, listing.reading.to_record())
        caches = []
        for directory in self.directories(listing):
            manifest = self.place.find_current(directory, state, self._suits)
            if manifest is None:
                return None
            caches.append(BuiltCache(self.place.location(directory), manifest))
        num_images = len(listing.records)
        return BuildSummary(caches=tuple(caches), num_images=num_images, num_kept=num_images, is_changed=False)

    def _suits(self, manifest: Manifest) -> bool:
        """Whether a cache has the requested codec and shard size."""
        return manifest.is_cut_as(self.shard_capacity) and self.codec in (None, manifest.codec)


def cache_place(root: Location, copies_dir: Path | None = None) -> CachePlace:
    """Return the place of caches below a folder or an address.

    `copies_dir` is the folder of local copies of an object store; None for the default.
    """
    if isinstance(root, Path):
        return FolderPlace(root)
    from leukemia_data.building.store_commit import stored_place

    return stored_place(root, copies_dir)


def parse_shard_size(given: int | str | None) -> int | None:
    """Parse a shard size, a number or ``auto``; None stays None.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if given is None:
        return None
    if given == "auto":
        return CAPACITY_BY_COUNT
    text = str(given)
    if not _SHARD_SIZE.fullmatch(text) or int(text) == 0:
        raise UsageError(f"shard size {text!r}: give a number of images from 1 to 999999, or auto (`--shard-size`)")
    return int(text)


@dataclass(frozen=True, slots=True)
class MaxBad:
    """Maximal unusable images: none, a number, or a fraction of all."""

    count: int | None = None
    fraction: float | None = None

    @classmethod
    def parse(cls, on_error: str, given: int | str) -> MaxBad:
        """Parse the arguments.

        Parameters
        ----------
        on_error
            ``fail`` at the first unusable image, or ``quarantine``: leave them out and list them, up to `given`.
        given
            A number, or a percentage such as ``5%``.

        Raises
        ------
        UsageError
            If an argument is invalid.
        """
        if on_error not in ("fail", "quarantine"):
            raise UsageError(f"{on_error!r}: unusable images either `fail` the build, or go to `quarantine`")
        match = _MAX_BAD.fullmatch(str(given).strip())
        if match is None or (match[1] is not None and float(match[1]) > 100):
            raise UsageError(
                f"{given!r} images that may be bad: give a number such as 20, or a percentage such as 5% (`--max-bad`)"
            )
        percentage, count = match.groups()
        if on_error == "fail":
            return cls()
        return cls(int(count)) if percentage is None else cls(fraction=float(percentage) / 100)

    def of(self, num_images: int) -> int | None:
        """Return the maximum for `num_images` images; None if the first one fails the build."""
        return self.count if self.fraction is None else int(self.fraction * num_images)
