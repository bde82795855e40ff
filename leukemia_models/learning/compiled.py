"""A network through torch.compile: for the forward pass only, so that names in checkpoints stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError

Forward = Callable[[Tensor], Tensor]
"""Images (B,3,S,S) in, logits (B,K) out."""
DEFAULT_BACKEND = "inductor"


def compiled_forward(network: nn.Module, backend: str = DEFAULT_BACKEND) -> Forward:
    """Return a function that runs `network` compiled, with its own parameters and buffers.

    Every size of a batch is compiled for itself, at its first call, which may take minutes: streams that train should
    drop a smaller last batch.

    Parameters
    ----------
    network : torch.nn.Module
        Where it will run; modes may change.
    backend : str
        One of ``torch.compiler.list_backends()``, or ``eager``, which traces the network but compiles nothing.

    Raises
    ------
    RunError
        Here or at a call, if this machine cannot compile.
    """
    with _compiler_errors():
        compiled: Callable[..., Any] = torch.compile(network, backend=backend, dynamic=False)

    def forward(images_BCHW: Tensor) -> Tensor:
        with _compiler_errors():
            logits_BK: Tensor = compiled(images_BCHW)
            return logits_BK

    return forward


@contextmanager
def _compiler_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch loads this part of itself, which takes a second, when it is asked for.
        if not (isinstance(error, torch._dynamo.exc.TorchDynamoException) or "torch.compile is not" in str(error)):
            raise
        # What follows is advice to developers of torch.
        reason = " ".join(str(error).strip().partition("\n\n")[0].split()).rstrip(".")
        raise RunError(
            f"the network cannot be compiled on this machine: {reason}. torch.compile "
            "needs a C++ compiler (g++, clang or MSVC), on CUDA also Triton: install it, or train without compiling"
        ) from error
