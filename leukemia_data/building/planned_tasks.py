"""The tasks of a plan, each made when somebody asks for it: ten million images need no object apiece until then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.gone_samples import GoneSamples
from leukemia_data.building.prior import ABSENT, PriorMatch, prior_sample
from leukemia_data.building.record_columns import RecordColumns
from leukemia_data.building.shard_task import CountedTasks, PriorSample, ShardTask, Target
from leukemia_data.recipes.recipe import Recipe
from leukemia_data.samples.record import Record


@dataclass(frozen=True)
class PlannedTasks(Sequence[ShardTask | None]):
    """Per shard of a plan its task, or None where every cache keeps it.

    Attributes
    ----------
    columns
        All records.
    positions_M : ndarray of shape (M,), int64
        Which of them are samples, in sample order.
    bounds : ndarray of shape (number of shards + 1,), int64
        Where the samples are cut.
    targets, matches
        The caches, and where their earlier states hold the records.
    is_lacking : ndarray of shape (number of caches, number of shards), bool
        Which cache needs which shard.
    recheck_ns
        See :class:`~leukemia_data.building.shard_task.ShardTask`.
    """

    recipe: Recipe
    columns: RecordColumns
    positions_M: NDArray[np.int64]
    bounds: NDArray[np.int64]
    targets: tuple[Target, ...]
    matches: tuple[PriorMatch | None, ...]
    is_lacking: NDArray[np.bool_]
    recheck_ns: int | None = None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, number: int) -> ShardTask | None: ...

    @overload
    def __getitem__(self, number: slice) -> list[ShardTask | None]: ...

    def __getitem__(self, number: int | slice) -> ShardTask | list[ShardTask | None] | None:
        """The task of one shard, made anew each time."""
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        return self._make(number) if self.is_lacking[:, number].any() else None

    @cached_property
    def numbers(self) -> list[int]:
        """Numbers of the shards that have a task."""
        return np.flatnonzero(self.is_lacking.any(axis=0)).tolist()

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Images of each shard, whether it has a task or not."""
        return np.diff(self.bounds)

    def targets_of(self, number: int) -> tuple[Target, ...]:
        """The caches that lack a shard."""
        return tuple(self.targets[n] for n in np.flatnonzero(self.is_lacking[:, number]).tolist())

    def records_of(self, number: int) -> tuple[Record, ...]:
        """The images of a shard in sample order."""
        positions = self.positions_M[self.bounds[number] : self.bounds[number + 1]].tolist()
        return tuple(self.columns.records[position] for position in positions)

    @cached_property
    def _gone(self) -> GoneSamples:
        return GoneSamples(self.targets, self.matches)

    def _make(self, number: int) -> ShardTask:
        positions = self.positions_M[self.bounds[number] : self.bounds[number + 1]].tolist()
        records = self.records_of(number)
        chosen = [n for n in np.flatnonzero(self.is_lacking[:, number]).tolist() if self.matches[n] is not None]
        unchanged: dict[str, PriorSample] = {}
        by_digest: dict[bytes, PriorSample] = {}
        for position, record in zip(positions, records, strict=True) if chosen else ():
            sample, is_same = self._prior_sample(position, chosen)
            if sample is not None:
                by_digest[sample.source_digest] = sample
                if is_same:
                    unchanged[record.record_id] = sample
        new = [record for record in records if record.record_id not in unchanged] if unchanged else records
        by_digest = {**self._gone.candidates(new), **by_digest}
        return ShardTask(records, self.targets_of(number), self.recipe, unchanged, by_digest, self.recheck_ns)

    def _prior_sample(self, position: int, chosen: Sequence[int]) -> tuple[PriorSample | None, bool]:
        """Where the chosen caches hold a record, and whether its file is the same as when they were made."""
        held = []
        is_same = True
        for number in chosen:
            match = self.matches[number]
            if match is not None and match.rows_N[position] != ABSENT:
                held.append((self.targets[number], match.prior, int(match.rows_N[position])))
                is_same &= bool(match.same_file_N[position])
        return prior_sample(held) if held else None, is_same


@dataclass(frozen=True)
class TasksToRun(CountedTasks):
    """The tasks that there are, without the gaps: what an engine is given."""

    planned: PlannedTasks

    def __len__(self) -> int:
        return len(self.planned.numbers)

    @overload
    def __getitem__(self, position: int) -> ShardTask: ...

    @overload
    def __getitem__(self, position: slice) -> list[ShardTask]: ...

    def __getitem__(self, position: int | slice) -> ShardTask | list[ShardTask]:
        """The task at a position, made anew each time."""
        if isinstance(position, slice):
            return [self[n] for n in range(*position.indices(len(self)))]
        task = self.planned[self.planned.numbers[position]]
        if task is None:
            raise IndexError(f"shard {self.planned.numbers[position]} has no task")
        return task

    def num_records(self) -> list[int]:
        """Images of each task, which needs no task to be made."""
        sizes: list[int] = self.planned.sizes[self.planned.numbers].tolist()
        return sizes
