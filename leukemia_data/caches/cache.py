"""Caches opened: their images, samples and splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.hdf5_file import check_fit, map_table
from leukemia_data.caches.manifest import MANIFEST_NAME, Manifest, load_manifest, missing_files
from leukemia_data.caches.shard import ShardImages, shard_images
from leukemia_data.caches.shard_rows import DecodedRows, ShardRows, is_mapped, open_rows
from leukemia_data.caches.statistics import ChannelStatistics, channel_statistics
from leukemia_data.errors import CacheError, UsageError
from leukemia_data.files.limits import allow_open_files
from leukemia_data.files.text import html_table, printable
from leukemia_data.records.arguments import Indices, as_indices, as_whole
from leukemia_data.records.record import UNKNOWN_LABEL
from leukemia_data.records.sample_table import PixelReader, SampleTable
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_spec import DEFAULT_SPLIT, SPLIT_NAMES, SplitCodes, SplitSpec, parse_split
from leukemia_data.splitting.splits import assign_split, split_indices
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_data.streams.dataset import CachedCells
    from leukemia_data.streams.loader import BatchStream


TRAIN, VALID, TEST = SPLIT_NAMES


@dataclass(frozen=True, repr=False, eq=False)
class Split:
    """A cache with every sample in one of three parts, or in no part.

    Attributes
    ----------
    cache
        The divided cache.
    spec
        Kind of split.
    codes : ndarray of shape (n,), int8
        Per sample: position in ``("train", "valid", "test")``, or 3 for no part.
    seen_before
        Overlap of the split with the training data of the initial weights.
    seed
        Seed of the split; None if unknown.
    """

    cache: Cache
    spec: SplitSpec
    codes: SplitCodes
    seen_before: SeenBefore = NOTHING_SEEN_BEFORE
    seed: int | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """Name as accepted by :meth:`Cache.split <leukemia_data.caches.cache.Cache.split>` and ``--split``."""
        return str(self.spec)

    @property
    def train(self) -> Part:
        """Part for training."""
        return Part(self, TRAIN)

    @property
    def valid(self) -> Part:
        """Part for choosing the best epoch."""
        return Part(self, VALID)

    @property
    def test(self) -> Part:
        """Part for the final evaluation."""
        return Part(self, TEST)

    @cached_property
    def leaks(self) -> LeakCheck:
        """Leaks between the parts."""
        return check_leaks(self.codes, self.cache.table, self.cache.manifest.subjects, self.seen_before)

    @property
    def stamp(self) -> str:
        """Label of results on this split: ``subject-disjoint``, or ``PATIENT-MIXED`` with the reason."""
        return self.leaks.stamp

    def indices(self, part: str) -> NDArray[np.int64]:
        """Return the sample indices of a part, ascending; ``all`` means every sample.

        Raises
        ------
        UsageError
            If the part is unknown or holds no image.
        """
        indices = split_indices(self.codes, part)
        if len(indices) == 0:
            raise UsageError(f"the part {part!r} of split {self.spec} holds no image")
        return indices

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(Part(self, name)):,}" for name in SPLIT_NAMES)
        return printable(f"Split({self.name}: {parts}; {self.stamp})")

    def _repr_html_(self) -> str:
        """Return a table with one row per part for notebooks."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        header = ("", "images", "subjects", *self.cache.manifest.classes)
        rows = (
            (part.name, *(f"{num:,}" for num in (len(part), len(part.subjects), *part.num_per_class.values())))
            for part in (self.train, self.valid, self.test)
        )
        return html_table(rows, header, f"{self.name}{seed}: {self.stamp}")


@dataclass(frozen=True, repr=False, eq=False)
class Part:
    """One part of a split, ``train``, ``valid`` or ``test``."""

    split: Split
    name: str

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Sample indices in the cache, of shape (N,), ascending."""
        return split_indices(self.split.codes, self.name)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of shape (N,), -1 where unknown."""
        return self.split.cache.table.labels[self.indices].astype(np.int64)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Known subjects, unique and sorted."""
        found = np.unique(self.split.cache.table.subjects[self.indices]).tolist()
        return tuple(subject.decode("utf-8", "surrogateescape") for subject in found if subject)

    @property
    def num_per_class(self) -> dict[str, int]:
        """Number of images by class name, in the order of labels."""
        labels = self.labels
        return {name: int((labels == label).sum()) for label, name in enumerate(self.split.cache.manifest.classes)}

    def __len__(self) -> int:
        return len(self.indices)

    def statistics(self) -> ChannelStatistics:
        """Return exact mean and standard deviation per channel, from sums stored with each image.

        Raises
        ------
        UsageError
            If the part holds no image.
        CacheError
            If the stored sums are inconsistent.
        """
        return statistics_of(self.split.cache, self.split.indices(self.name))

    def stream(
        self,
        batch_size: int = 64,
        *,
        shuffle: bool | None = None,
        seed: int | None = None,
        balance: Literal["class", "subject"] | None = None,
        drop_last: bool = False,
        device: Any = "cpu",  # noqa: ANN401 - torch.device would load torch
        residency: str = "auto",
        num_threads: int | None = None,
    ) -> BatchStream:
        """Return a stream of batches of uint8 images on a device, prefetched by threads. Imports torch.

        Parameters
        ----------
        batch_size
            Images per batch.
        shuffle
            Whether to shuffle each epoch; by default for ``train`` only.
        seed
            Seed of the order; by default the split's.
        balance
            Draw classes, or subjects, equally often instead of each image once. Needs a shuffled order.
        drop_last
            Leave out an incomplete last batch.
        device
            Torch device of images and labels.
        residency, num_threads
            Where the pixels are kept, and how many batches are gathered in parallel: see
            :class:`~leukemia_data.streams.loader.BatchStream`.

        Raises
        ------
        UsageError
            If the part holds no image, or an argument is wrong.
        CacheError
            If a shard cannot be mapped.
        """
        from leukemia_data.streams.batch import balanced_weights
        from leukemia_data.streams.loader import BatchStream

        indices, table = self.split.indices(self.name), self.split.cache.table
        if balance not in (None, "class", "subject"):
            raise UsageError(f"balance must be 'class', 'subject' or None, got {balance!r}")
        groups = {"class": table.labels, "subject": table.subjects}
        is_shuffled = self.name == TRAIN if shuffle is None else shuffle
        own_seed = self.split.seed or 0
        return BatchStream(
            self.split.cache,
            indices,
            batch_size=batch_size,
            seed=(own_seed if seed is None else seed) if is_shuffled else None,
            weights_N=None if balance is None else balanced_weights(groups[balance][indices]),
            drop_last=drop_last,
            device=device,
            residency=residency,
            num_threads=num_threads,
        )

    def dataset(self) -> CachedCells:
        """Return a dataset for :class:`torch.utils.data.DataLoader`, with any number of workers. Imports torch.

        Raises
        ------
        UsageError
            If the part holds no image.
        """
        from leukemia_data.streams.dataset import CachedCells

        return CachedCells(self.split.cache, self.split.indices(self.name))

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.num_per_class.items())
        return printable(
            f"Part({self.name} of {self.split.name}: {len(self):,} images of {len(self.subjects):,} subjects, {counts})"
        )


def statistics_of(cache: Cache, indices: NDArray[np.int64]) -> ChannelStatistics:
    """Return exact mean and standard deviation per channel of some samples; raises as :meth:`Cache.statistics`."""
    table = cache.table
    sums, square_sums = table.channel_sums[indices], table.channel_square_sums[indices]
    statistics = channel_statistics(sums, square_sums, cache.pixels_per_image)
    if statistics is None:
        raise UsageError("there is no image to compute statistics of")
    return statistics


WITHOUT_LOOKS = (
    "a release that kept no looks of images made this cache, so near-identical ones are not looked for; `ldata build` "
    "with the same source adds them"
)
"""Note for a cache without comparable looks, see ``Manifest.has_looks``."""


@dataclass(frozen=True, repr=False)
class Cache:
    """A committed cache and its sample table.

    Sample i is row i of the table: shard by shard in the manifest's order.
    """

    directory: Path
    manifest: Manifest
    table: SampleTable

    @property
    def size_px(self) -> int:
        """Side of the images."""
        return self.manifest.size_px

    @property
    def pixels_per_image(self) -> int:
        """Height times width of the images."""
        return self.size_px * self.size_px

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """Index of the first sample of each shard, followed by the number of samples."""
        return np.cumsum([0, *(shard.num_samples for shard in self.manifest.shards)]).astype(np.int64)

    @property
    def location(self) -> Location:
        """The cache's directory or address, as shown to users and accepted by `open_cache`."""
        return self.directory

    @property
    def is_fetched(self) -> bool:
        """Whether its files are local copies, downloaded again if missing or damaged."""
        return False

    @property
    def traffic_text(self) -> str:
        """Summary of the downloads so far; empty for a local cache."""
        return ""

    @cached_property
    def reader(self) -> PixelReader:
        """Reader of the cache's pixels, shared by all users of this object because it holds a file per shard."""
        return SampleReader(self)

    def split(self, name: str | SplitSpec = DEFAULT_SPLIT, seed: int = 0) -> Split:
        """Divide the samples into train, valid and test.

        Parameters
        ----------
        name
            ``subject`` (75 / 15 / 10 % by whole subjects), ``fold:K/N``, ``test-fold:K/N``, ``official:K``,
            ``leave-out:NAME,NAME``, ``given`` or ``image``: see :mod:`leukemia_data.splitting.split_spec`.
        seed
            Decides among equally good splits.

        Raises
        ------
        UsageError
            If there is no such split, or the samples do not allow it; the message says which splits they allow.
        """
        if not isinstance(name, str | SplitSpec):
            raise UsageError(f"name must be that of a split, such as 'subject' or 'fold:1/5', got {name!r:.60}")
        spec = parse_split(name) if isinstance(name, str) else name
        seed = as_whole(seed, "seed", at_least=0)
        codes = assign_split(spec, self.table, seed, self.manifest.classes, self.manifest.subjects)
        return Split(self, spec, codes, seed=seed)

    def statistics(self) -> ChannelStatistics:
        """Return exact mean and standard deviation per channel of all images, from sums stored with each.

        Networks are normalised by those of the training part alone: ``cache.split().train.statistics()``.

        Raises
        ------
        UsageError
            If there is no image.
        CacheError
            If the stored sums are inconsistent.
        """
        return statistics_of(self, np.arange(len(self)))

    def close(self) -> None:
        """Release the maps and files of the pixels; streams and datasets in use keep them open."""
        self.__dict__.pop("reader", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        words = ", ".join(f"{name}={text}" for name, text in self._description())
        return printable(f"Cache({words})").replace("\n", "\\n")

    def _repr_html_(self) -> str:
        """Return a small table, which notebooks show."""
        return html_table(self._description())

    def _description(self) -> Iterator[tuple[str, str]]:
        labels, names = self.table.labels, [*enumerate(self.manifest.classes), (UNKNOWN_LABEL, "unlabelled")]
        counts = [(name, int((labels == label).sum())) for label, name in names]
        classes = ", ".join(f"{name} {count:,}" for name, count in counts if count)
        yield "name", self.manifest.name
        yield "size", f"{self.size_px} px"
        yield "images", f"{len(self):,} ({classes})"
        yield "recipe", self.manifest.recipe.name
        yield "location", str(self.location)


class SampleReader:
    """Copies pixels out of the shards, by sample index.

    Maps all shards up front and keeps them mapped, so that later builds and gc do not affect it (on Windows, gc cannot
    remove them meanwhile). Without memory maps, files are kept open and read. Pickles as paths and offsets, which
    workers map again. Thread-safe.

    Raises
    ------
    CacheError
        If a shard is missing, truncated or damaged.
    """

    def __init__(self, cache: Cache, open_rows: Callable[[ShardImages], ShardRows] = open_rows) -> None:
        self._shards = [
            shard_images(cache.directory, entry, cache.size_px, cache.manifest.codec) for entry in cache.manifest.shards
        ]
        self._first_rows = cache.first_rows
        self.size_px = cache.size_px
        self._open_rows = open_rows
        self._rows = self._opened()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows = self._opened()

    def _opened(self) -> list[ShardRows]:
        # A map holds its file open, too.
        allow_open_files(len(self._shards))
        return [self._open_rows(shard) for shard in self._shards]

    @property
    def num_unmapped(self) -> int:
        """Number of shards that could not be mapped, and are read instead."""
        return sum(not is_mapped(rows) for rows in self._rows)

    def image(self, number: int) -> NDArray[np.uint8]:
        """Return one image, shape (S, S, 3), uint8, read-only: a view of the map if there is one.

        Raises
        ------
        UsageError
            If there is no such sample.
        """
        (shard,), (row,) = locate_rows(self._first_rows, one_number(self._first_rows, number))
        return self._rows[shard][row].reshape(self.size_px, self.size_px, 3)

    def gather(self, indices_B: Indices, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return images in the order of the indices.

        Parameters
        ----------
        indices_B : ndarray of shape (B,), int64
            Sample indices, or anything that :func:`~leukemia_data.records.arguments.as_indices` accepts.
        out : ndarray of shape (B, S, S, 3), uint8, optional
            Contiguous buffer to fill.

        Returns
        -------
        ndarray of shape (B, S, S, 3), uint8

        Raises
        ------
        UsageError
            If an index is out of range, or `indices_B` is of another kind.
        ValueError
            If `out` has another shape or is not contiguous.
        """
        indices_B = as_indices(indices_B, int(self._first_rows[-1]), "indices_B")
        if out is None:
            out = np.empty((len(indices_B), self.size_px, self.size_px, 3), np.uint8)
        rows = self._rows
        # Rows of bytes are the cheapest to copy. The copy releases the GIL, so threads run in parallel.
        flat = out.reshape((len(indices_B), self.size_px * self.size_px * 3), copy=False)
        for position, (shard, row) in enumerate(zip(*locate_rows(self._first_rows, indices_B), strict=True)):
            shard_rows = rows[shard]
            if isinstance(shard_rows, DecodedRows):
                shard_rows.copy_to(row, flat[position])
            else:
                flat[position] = shard_rows[row]
        return out


def locate_rows(first_rows: NDArray[np.int64], indices_B: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Return the shard of each sample and its row there; `first_rows` is :attr:`Cache.first_rows`. Checks no index."""
    shards_B = np.searchsorted(first_rows, indices_B, side="right") - 1
    return shards_B.tolist(), (indices_B - first_rows[shards_B]).tolist()


def one_number(first_rows: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return a sample index as an array of one; raises UsageError if there is no such sample."""
    return np.array([as_whole(number, "number", at_least=0, below=int(first_rows[-1]))], np.int64)


def open_cache(directory: Path) -> Cache:
    """Open the cache in a directory.

    Raises
    ------
    CacheError
        If there is no manifest, a file is missing or truncated, or index and manifest do not match.
    """
    manifest = load_manifest(directory)
    absent = missing_files(directory, manifest)
    if absent:
        raise CacheError(
            f"{directory}: {len(absent)} files are missing or truncated, first {absent[0]}; "
            "`ldata verify` lists them, building again makes them anew"
        )
    table = map_table(directory, manifest.index)
    check_fit(directory, manifest, table)
    return Cache(directory, manifest, comparable_table(manifest, table))


def comparable_table(manifest: Manifest, table: SampleTable) -> SampleTable:
    """Return the table, without looks computed by another release."""
    if manifest.has_looks or manifest.looks_version == 0:
        return table
    return replace(table, looks=np.zeros_like(table.looks))


def find_cache_dirs(root: Path) -> list[Path]:
    """Return the directories of all committed caches: `root` itself, or up to two levels below it."""
    candidates = [root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]
    return [path for path in candidates if (path / MANIFEST_NAME).is_file()]
