"""Reused memory for batches on the CPU: tensors out; their memory comes back by itself when nobody holds them any more.

The memory of every batch would otherwise be fetched from the operating system and given back, since allocators do so
with everything large, and writing to fresh pages costs several times what writing to used ones does.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNMENT_BYTES = 64


class BufferPool:
    """Hands out uninitialised CPU tensors, and hands their memory out again once they are gone.

    A tensor's memory comes back when the tensor and everything that shares its storage is gone: views, NumPy arrays
    made of it, and what autograd keeps for a backward pass. Nothing that somebody still holds is ever overwritten.
    All methods may be called from any thread.

    Parameters
    ----------
    max_idle
        How many buffers are kept while nobody uses them; the one that was idle longest goes first.
    """

    def __init__(self, max_idle: int = 4) -> None:
        # Finalizers put buffers back at any moment, even in the middle of `take` in the same thread, where a lock
        # would wait for itself; each single operation of a deque is atomic, so none is needed.
        self._idle: deque[NDArray[np.uint8]] = deque(maxlen=max_idle)

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a contiguous tensor on the CPU that holds arbitrary values.

        Parameters
        ----------
        shape
            Sizes of its dimensions, each at least 0.
        dtype
            Type of its elements.
        """
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        memory = self._take_idle(num_bytes)
        if memory is None:
            memory = _aligned_bytes(num_bytes)
        # The tensor's storage is the only one to hold this view, and holds it until nothing shares the storage.
        view = memory[:num_bytes]
        weakref.finalize(view, self._idle.append, memory).atexit = False
        return torch.from_numpy(view).view(dtype).view(tuple(shape))

    @property
    def num_idle(self) -> int:
        """How many buffers wait for being handed out again."""
        return len(self._idle)

    def clear(self) -> None:
        """Give idle memory back to the system; buffers in use are not touched."""
        self._idle.clear()

    def _take_idle(self, num_bytes: int) -> NDArray[np.uint8] | None:
        """The first idle buffer that is large enough, looked for once around."""
        for _ in range(len(self._idle)):
            try:
                memory = self._idle.pop()
            except IndexError:
                return None
            if memory.nbytes >= num_bytes:
                return memory
            self._idle.appendleft(memory)
        return None


def _aligned_bytes(num_bytes: int) -> NDArray[np.uint8]:
    """Uninitialised bytes that begin at a multiple of what vector instructions and cache lines like."""
    memory = np.empty(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + num_bytes]
