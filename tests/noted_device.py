"""A substitute for the library's ``current``, which makes a device the current one for a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def noting_current(calls: list[object]) -> Callable[[torch.device], AbstractContextManager[None]]:
    """Return a context manager that notes its device at the beginning of a block, and ``"left"`` at its end."""

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        calls.append(device)
        yield
        calls.append("left")

    return current
