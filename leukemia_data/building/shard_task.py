"""One shard's work as a value, and what it made: all that a worker on any engine is given and gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leukemia_data.caches.manifest_entries import RAW, QuarantinedImage, ShardEntry
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.file_states import FileStates
from leukemia_data.samples.fingerprint import LOOKS_VERSION, records_digest
from leukemia_data.samples.record import Record
from leukemia_data.samples.sample_table import SampleTable

if TYPE_CHECKING:
    # Loads fsspec, which caches on disks have no use for.
    from leukemia_data.storage.stored_url import StoredUrl


@dataclass(frozen=True, slots=True)
class Target:
    """A cache under construction: its size, identity and directory, how its pixels are stored; a store's address."""

    size_px: int
    fingerprint: str
    directory: Path
    codec: str = RAW
    stored_at: StoredUrl | None = None


@dataclass(frozen=True, slots=True)
class PriorSample:
    """Where an earlier build left a sample: per size, the shard and the row in it."""

    source_digest: bytes
    rows: Mapping[int, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class ShardTask:
    """All that is needed to make one shard of one or several caches.

    Attributes
    ----------
    records
        Images of the shard in sample order.
    targets
        Caches that lack this shard.
    recipe
        What to do to each image.
    unchanged
        By record id: samples whose files have not changed since they were cached.
    by_digest
        By digest of the source file: samples that may turn out to be the same image.
    recheck_ns
        Clock when a recheck began (ns since the epoch): what was made of the same file states before, or for another
        recheck, does not count as made. None where it does.
    """

    records: tuple[Record, ...]
    targets: tuple[Target, ...]
    recipe: Recipe
    unchanged: Mapping[str, PriorSample] = field(default_factory=dict)
    by_digest: Mapping[bytes, PriorSample] = field(default_factory=dict)
    recheck_ns: int | None = None

    @property
    def key(self) -> str:
        """Identity of the task's work: the metadata and file states of its records, and the version of looks."""
        recheck = "" if self.recheck_ns is None else f", recheck {self.recheck_ns}"
        return records_digest(self.records, f"looks {LOOKS_VERSION}{recheck}")


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a task made.

    Attributes
    ----------
    entries
        Per size, the shard; empty when no image of the task was usable.
    tables
        Per size, the rows of the shard.
    source_states : ndarray of shape (n, 4), int64
        State of each row's file when it was read, see :mod:`leukemia_data.samples.file_states`.
    failures
        Images left out, with reasons.
    num_processed, num_copied
        Images that were decoded and preprocessed, and images whose pixels an earlier shard held.
    num_records
        Images the task was given.
    """

    entries: Mapping[int, ShardEntry]
    tables: Mapping[int, SampleTable]
    source_states: FileStates
    failures: tuple[QuarantinedImage, ...]
    num_processed: int
    num_copied: int
    num_records: int


class CountedTasks(Sequence["ShardTask"], ABC):
    """Tasks that tell how many images each has before they are made."""

    @abstractmethod
    def num_records(self) -> list[int]:
        """Images of each task."""


def largest_first(tasks: Sequence[ShardTask]) -> list[int]:
    """Positions of the tasks, so ordered that no worker is left alone with a large one at the end."""
    sizes = tasks.num_records() if isinstance(tasks, CountedTasks) else [len(task.records) for task in tasks]
    return sorted(range(len(tasks)), key=lambda position: -sizes[position])
