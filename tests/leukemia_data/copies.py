"""Copies between devices that may still be reading their source when the call returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode


class UnfinishedCopies(TorchFunctionMode):
    """Records calls with ``non_blocking=True`` in its block, in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if (kwargs or {}).get("non_blocking"):
            self.begun.append(function.__name__)
        return function(*args, **(kwargs or {}))
