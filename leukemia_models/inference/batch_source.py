"""What training and judging need of a stream of batches, whoever makes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor


class Batch(Protocol):
    """Samples that travel together: with several ranks, this rank's share of a batch."""

    @property
    def images_BHWC(self) -> Tensor:
        """Grey levels, uint8 (B,S,S,3), RGB; on any device."""
        ...

    @property
    def labels_B(self) -> Tensor:
        """Classes, int64 (B,); -1 where unknown; on any device."""
        ...

    @property
    def indices_B(self) -> Tensor:
        """Numbers of the samples in their cache, int64 (B,), on the CPU."""
        ...

    @property
    def mask_B(self) -> Tensor:
        """False for rows that only fill up a rank's share and count for nothing; bool (B,), on the CPU."""
        ...


class BatchSource(Protocol):
    """A split as a stream of batches. With several ranks, every rank's has the same length.

    Where a rank works through its share of a batch in several parts, as ``TrainSettings.accumulate`` says, each part
    comes as a batch of its own.
    """

    def epoch(self, epoch: int, first_step: int = 0) -> Iterable[Batch]:
        """Return the batches of one epoch without those of its first `first_step` steps.

        Epochs count from 1; the order may depend on the epoch and nothing else.
        """
        ...

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        ...
