"""A cache with the split that a run made of it. Light: a run is prepared and trained without what judges it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leukemia_data.caches.cache import Cache
from leukemia_data.errors import UsageError
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.seen_samples import NOTHING_SEEN_BEFORE, SeenBefore
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitCodes, SplitSpec
from leukemia_data.splitting.splits import split_numbers
from leukemia_models.judging.subject_counts import subjects_per_class
from leukemia_models.reports.split_summary import SplitCounts, SplitSummary, part_stamp

TRAIN, VALID, TEST = "train", "valid", "test"


@dataclass(frozen=True)
class SplitCache:
    """A cache with the split that a run made of it."""

    cache: Cache
    spec: SplitSpec
    codes: SplitCodes
    seen_before: SeenBefore = NOTHING_SEEN_BEFORE
    """Where the split meets what the weights that the run starts from have seen."""
    num_added: int = 0
    """Samples of the cache that came after the run began; they are unused."""

    @cached_property
    def leaks(self) -> LeakCheck:
        """What stands on two sides of the split."""
        return check_leaks(self.codes, self.cache.table, self.cache.manifest.subjects, self.seen_before)

    def numbers(self, part: str) -> NDArray[np.int64]:
        """Sample numbers of a part; never empty.

        Raises
        ------
        UsageError
            If the part is unknown or holds no image.
        """
        numbers = split_numbers(self.codes, part)
        if len(numbers) == 0:
            raise UsageError(f"the part {part!r} of split {self.spec} holds no image")
        return numbers

    def summary(self, judged: str, classes: Sequence[str] | None = None) -> SplitSummary:
        """Return the split as reports describe it, with counts in the order of `classes`, else of the labels."""
        table, names = self.cache.table, self.cache.manifest.classes
        order = [names.index(name) for name in classes or names]
        subjects = np.array(table.subject_texts, object)
        parts = {}
        for name in (*SPLIT_NAMES, *({judged} - set(SPLIT_NAMES))):
            numbers = split_numbers(self.codes, name)
            labels = table.labels[numbers]
            counts = tuple(int((labels == label).sum()) for label in order)
            people = subjects_per_class(labels, subjects[numbers].tolist(), len(names))
            parts[name] = SplitCounts(counts, None if people is None else tuple(people[label] for label in order))
        return SplitSummary(str(self.spec), self.leaks, judged, parts, self._num_trained(judged))

    def stamp(self, judged: str) -> str:
        """The stamp of an evaluated part, as :meth:`summary` has it, without counting the parts."""
        return part_stamp(self.leaks, self._num_trained(judged))

    def _num_trained(self, judged: str) -> int:
        return int((self.codes[split_numbers(self.codes, judged)] == SPLIT_NAMES.index(TRAIN)).sum())
