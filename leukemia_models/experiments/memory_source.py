"""Images that lie in memory as a stream of batches: arrays in, a BatchSource out. For small sets, without a cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.samples.number_arrays import as_labels
from leukemia_data.streams.batch import Batch
from leukemia_data.streams.batch_plan import BatchPlan


class MemorySource:
    """Batches of arrays, each with memory of its own.

    Parameters
    ----------
    images_NHWC : uint8 array (N,S,S,3)
        RGB. Sample number i is image i.
    labels_N : int64 array (N,)
        Classes.
    batch_size : int
        At least 1; the last batch of an epoch may be smaller.
    seed : int, optional
        Shuffles each epoch anew; None keeps the order of the arrays.
    drop_last : bool
        Leave out a last batch that is not full.

    Raises
    ------
    UsageError
        If an argument is of another kind, or there are not as many labels as images.
    """

    def __init__(
        self,
        images_NHWC: NDArray[np.uint8],
        labels_N: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        images_NHWC, labels_N = np.asarray(images_NHWC), as_labels(labels_N, "labels_N")
        if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or labels_N.ndim != 1:
            raise UsageError(
                f"images_NHWC must be uint8 (N,S,S,3) and labels_N (N,), got {images_NHWC.dtype} {images_NHWC.shape} "
                f"and {labels_N.shape}"
            )
        if len(images_NHWC) != len(labels_N):
            raise UsageError(f"{len(images_NHWC)} images but {len(labels_N)} labels")
        numbers_N = np.arange(len(labels_N), dtype=np.int64)
        self._images_NHWC, self._labels_N = images_NHWC, labels_N
        self._plan = BatchPlan(numbers_N, batch_size=batch_size, seed=seed, drop_last=drop_last)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self._plan)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Return the batches of one epoch without its first `first_step` ones, on the CPU."""
        for numbers_B, mask_B in self._plan.batches(epoch, first_step):
            yield Batch(
                torch.from_numpy(self._images_NHWC[numbers_B]),
                torch.from_numpy(self._labels_N[numbers_B]),
                torch.from_numpy(numbers_B.copy()),
                torch.from_numpy(mask_B),
            )
