"""What a build is asked for, and whether there is anything to do. Light: it loads neither NumPy nor OpenCV."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

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
    """One cache as a build left it."""

    directory: Location
    manifest: Manifest
    num_new_shards: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What a build did.

    Attributes
    ----------
    caches
        One a size, in the order that was asked for.
    num_images
        Images of the source.
    num_processed, num_copied, num_kept
        Images that were decoded and preprocessed, whose pixels were copied from earlier shards, and whose shards
        stayed as they were.
    quarantined
        Images that cannot be used, and are in no cache.
    is_changed
        False if there was nothing to do.
    caution
        What a user should know of the images before training on them, if anything; consoles were warned of it.
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
        """All but the caches, as JSON says it."""
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
    """A source's listing, the clock (ns since the epoch) and the wanted caches' commits when it was begun."""

    listing: SourceListing
    listed_at_ns: int
    commits: Commits


class CachePlace(Protocol):
    """Where caches lie: a folder, or a store that is mirrored in one."""

    @property
    def root(self) -> Path:
        """The folder; the cache called `name` of a size lies in ``root/name/<size>-<fingerprint>``."""
        ...

    def location(self, directory: Path) -> Location:
        """Return the place of the cache whose directory, in the folder, this is."""
        ...

    def find_current(self, directory: Path, state: str, suits: Callable[[Manifest], bool]) -> Manifest | None:
        """Return a cache's manifest if it holds a source in this state, whole, and `suits`."""
        ...

    def commits(self, dir_names: Sequence[str]) -> Commits:
        """Return the present commits of all caches in directories of these names, whatever their own."""
        ...

    def stored(self, directories: Sequence[Path]) -> Mapping[Path, StoredCache] | None:
        """Return what a build is planned on where caches lie in a store; None where they lie in the folder."""
        ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder that holds caches; see :class:`CachePlace`."""

    root: Path

    def location(self, directory: Path) -> Location:
        """Return the directory."""
        return directory

    def find_current(self, directory: Path, state: str, suits: Callable[[Manifest], bool]) -> Manifest | None:
        """Return a cache's manifest if it holds a source in this state, whole, and `suits`."""
        manifest = find_current(directory, state)
        return manifest if manifest is not None and suits(manifest) else None

    def commits(self, dir_names: Sequence[str]) -> Commits:
        """Return the present commits of all caches in directories of these names."""
        found = {}
        for dir_name in dir_names:
            for path in self.root.glob(f"*/{dir_name}/{MANIFEST_NAME}"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    found[path.parent] = status.st_ino, status.st_size, status.st_mtime_ns
        return found

    def stored(self, directories: Sequence[Path]) -> None:
        """Return None: nothing lies in a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Which images become which caches.

    Attributes
    ----------
    sources
        Folders and tables of images.
    place
        Where the caches are to lie.
    recipe, sizes_px
        What is done to the images, and the sides of the cached squares in px: one cache a size.
    name
        Of the caches; None for that of the source's folder.
    root, allow_outside, reading
        How tables and folders are understood, see :func:`leukemia_data.sources.source.list_source`.
    codec
        How pixels are stored; None for what the cache has, and raw for a new one.
    shard_capacity
        Images a shard holds at the most, :data:`~leukemia_data.caches.manifest.CAPACITY_BY_COUNT` to let their number
        decide, None for what an earlier build was told, if anything.
    wait
        Wait for others that work on the same caches, instead of leaving.
    recheck
        Read every file, also those that look as they did, and let their digests decide.
    clock_ns
        Tells the time (ns since the epoch).
    console
        Is told what is done.
    """

    sources: SourceChoice
    place: CachePlace
    recipe: Recipe
    sizes_px: tuple[int, ...]
    name: str | None
    root: ImagePlace | None
    allow_outside: bool
    reading: ReadingOptions | None
    codec: str | None
    shard_capacity: int | None
    wait: bool
    recheck: bool
    clock_ns: Callable[[], int]
    console: Console

    @classmethod
    def of(
        cls,
        sources: SourceChoice | Sequence[ImagePlace],
        *,
        sizes_px: Sequence[int] = (),
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
    ) -> BuildRequest:
        """Return the request that arguments mean, see the attributes; UsageError if one is wrong.

        Sizes are 224 px where none is given. `recipe` is a value, the name of a preset or the path of a recipe file;
        for `cache_root` and `copies_dir` see :func:`cache_place`, for `shard_size` :func:`parse_shard_size`.
        """
        sizes = tuple(dict.fromkeys(sizes_px)) or DEFAULT_SIZES_PX
        chosen_recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        for size_px in sizes:
            chosen_recipe.check_size(size_px)
        if name is not None and not _CACHE_NAME.fullmatch(name):
            raise UsageError(f"name {name!r}: use letters, digits, . - and _, a letter or digit first (`--name`)")
        capacity = parse_shard_size(shard_size)
        return cls(
            sources=sources if isinstance(sources, SourceChoice) else SourceChoice(tuple(sources)),
            place=cache_place(cache_root, copies_dir),
            recipe=chosen_recipe,
            sizes_px=sizes,
            name=name,
            root=root,
            allow_outside=allow_outside,
            reading=reading,
            codec=codec,
            shard_capacity=capacity,
            wait=wait,
            recheck=recheck,
            clock_ns=clock_ns,
            console=console,
        )

    @property
    def opencv_version(self) -> str:
        """The release of OpenCV, which decides pixels."""
        return installed_opencv_version()

    @property
    def dir_names(self) -> list[str]:
        """Names of the caches' directories, one a size."""
        return [
            cache_dir_name(size_px, cache_fingerprint(self.recipe, size_px, self.opencv_version))
            for size_px in self.sizes_px
        ]

    def cache_name(self, listing: SourceListing) -> str:
        """Return the name of the caches."""
        return self.name or self.sources.cache_name or listing.name

    def directories(self, listing: SourceListing) -> list[Path]:
        """Return the directories of the caches, one a size."""
        return [self.place.root / self.cache_name(listing) / dir_name for dir_name in self.dir_names]

    def list_first(self) -> ListedSource:
        """Note which source is used, generate it if it is the built-in sample, and list it."""
        announce_source(self.sources, self.console)
        return self.list_now()

    def list_now(self) -> ListedSource:
        """List the source as it is now."""
        commits, listed_at_ns = self.place.commits(self.dir_names), self.clock_ns()
        listing = list_source(
            self.sources.paths, root=self.root, allow_outside=self.allow_outside, options=self.reading
        )
        return ListedSource(listing, listed_at_ns, commits)

    def unchanged(self, listing: SourceListing) -> BuildSummary | None:
        """Return the summary of a build with nothing to do; None where there is something."""
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
        """Whether a cache's shards are laid out as they shall be."""
        return manifest.is_cut_as(self.shard_capacity) and self.codec in (None, manifest.codec)


def cache_place(root: Location, copies_dir: Path | None = None) -> CachePlace:
    """Return what finds caches below a folder or an address.

    Parameters
    ----------
    root
        The folder or the address.
    copies_dir
        Folder for copies of what lies at an address; None for the default.
    """
    if isinstance(root, Path):
        return FolderPlace(root)
    from leukemia_data.building.stored_caches import stored_place

    return stored_place(root, copies_dir)


def parse_shard_size(given: int | str | None) -> int | None:
    """Return the capacity of shards that a number or ``auto`` means; None stands for none that is given.

    Raises
    ------
    UsageError
        If it means none.
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
    """How many images may be unusable: none, a number, or a fraction of all."""

    count: int | None = None
    fraction: float | None = None

    @classmethod
    def parse(cls, on_error: str, given: int | str) -> MaxBad:
        """Return what the arguments mean.

        Parameters
        ----------
        on_error
            ``fail`` at the first, or ``quarantine``: leave them out and list them, as many as there may be.
        given
            A number, or a percentage such as ``5%``.

        Raises
        ------
        UsageError
            If they mean nothing.
        """
        if on_error not in ("fail", "quarantine"):
            raise UsageError(f"{on_error!r}: unusable images either `fail` the build, or go to `quarantine`")
        match = _MAX_BAD.fullmatch(str(given).strip())
        if match is None or (match[1] is not None and float(match[1]) > 100):
            raise UsageError(
                f"{given!r} images that may be bad: give a number such as 20, or a share such as 5% (`--max-bad`)"
            )
        percentage, count = match.groups()
        if on_error == "fail":
            return cls()
        return cls(int(count)) if percentage is None else cls(fraction=float(percentage) / 100)

    def of(self, num_images: int) -> int | None:
        """Return how many of so many images; None if the first is one too many."""
        return self.count if self.fraction is None else int(self.fraction * num_images)
