"""A cache divided into train, valid and test: contents, leaks, and batches of each part."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.manifest import Manifest
from leukemia_data.caches.statistics import ChannelStatistics, channel_statistics
from leukemia_data.errors import UsageError
from leukemia_data.files.text import html_table, printable
from leukemia_data.records.arguments import as_whole
from leukemia_data.records.samples import Samples
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitCodes, SplitSpec, parse_split
from leukemia_data.splitting.splits import assign_split, split_indices

if TYPE_CHECKING:
    from leukemia_data.streams.dataset import CachedCells
    from leukemia_data.streams.loader import BatchStream

TRAIN, VALID, TEST = SPLIT_NAMES


class SplitSource(Samples, Protocol):
    """Samples that can be divided: a cache, whose module imports this one."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the samples."""
        ...


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

    cache: SplitSource
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
        """Return the sample indices of a part, ascending; never empty. ``all`` means every sample.

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
        return html_table(
            map(_row, (Part(self, name) for name in SPLIT_NAMES)), header, f"{self.name}{seed}: {self.stamp}"
        )


def _row(part: Part) -> tuple[str, ...]:
    return part.name, f"{len(part):,}", f"{len(part.subjects):,}", *(f"{num:,}" for num in part.num_per_class.values())


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


def split_cache(cache: SplitSource, name: str | SplitSpec, seed: int) -> Split:
    """Divide a cache; see :meth:`leukemia_data.caches.cache.Cache.split`."""
    if not isinstance(name, str | SplitSpec):
        raise UsageError(f"name must be that of a split, such as 'subject' or 'fold:1/5', got {name!r:.60}")
    spec = parse_split(name) if isinstance(name, str) else name
    seed = as_whole(seed, "seed", at_least=0)
    codes = assign_split(spec, cache.table, seed, cache.manifest.classes, cache.manifest.subjects)
    return Split(cache, spec, codes, seed=seed)


def statistics_of(cache: SplitSource, indices: NDArray[np.int64]) -> ChannelStatistics:
    """Return exact mean and standard deviation per channel of some samples, at least one.

    Raises
    ------
    UsageError
        If there is no sample.
    CacheError
        If the stored sums are inconsistent.
    """
    table = cache.table
    sums, square_sums = table.channel_sums[indices], table.channel_square_sums[indices]
    statistics = channel_statistics(sums, square_sums, cache.pixels_per_image)
    if statistics is None:
        raise UsageError("there is no image to compute statistics of")
    return statistics
