"""Several processes that train one network: their ranks, and collective operations on small host arrays.

Each of the `world_size` processes has its own rows of every batch; gradients go through torch's
DistributedDataParallel. Every rank must make the same calls in the same order. An action that may fail on one rank
goes through :meth:`Ranks.all_gather_numbers` or :meth:`Ranks.run_on_all`, which raise on all, so that no rank waits for
a failed one. Where that would cost an exchange in every step, a failed rank leaves instead, and the others notice that
its connections are closed. A single process uses no process group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from leukemia_data.errors import RunError, UsageError

MESSAGE_BYTES = 1000
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, and collective operations of all ranks.

    Parameters
    ----------
    rank : int
        In ``range(world_size)``, else UsageError is raised.
    world_size : int
        With more than one, torch's process group must be set up: see :func:`joined_ranks`.
    num_here : int
        Processes on this machine; 0 if unknown, which counts as all.
    """

    rank: int = 0
    world_size: int = 1
    num_here: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"a rank must be in 0 to world size - 1, got rank {self.rank} of {self.world_size}")

    @property
    def processes_here(self) -> int:
        """Number of processes that share this machine's memory."""
        return self.num_here or self.world_size

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone writes files and prints."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """All-gather tensors of one shape and dtype: (world_size, ...), in the order of the ranks.

        On CUDA the host does not wait for the result.
        """
        if self.world_size == 1:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(self.world_size)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks, bitwise the same on every rank."""
        # Summed here: the order of additions in an all-reduce may differ from rank to rank.
        return self.gather(values).sum(dim=0)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks of floating-point tensors; the same on every rank."""
        return self.sum(values) / self.world_size

    def all_gather_numbers(self, *numbers: float, error: Exception | None = None) -> Tensor:
        """All-gather numbers to a float64 tensor (world_size, number of numbers), or raise on all ranks.

        Parameters
        ----------
        *numbers : float
            Equally many on every rank.
        error : Exception, optional
            The error of this rank. It still passes numbers, which are not used.

        Raises
        ------
        Exception
            `error`, on the ranks that pass one.
        RunError
            On the others, with the message of the first failed rank.
        """
        try:
            if self.world_size == 1:
                if error is not None:
                    raise error
                return torch.tensor([numbers], dtype=torch.float64)
            gathered_WN = self.gather(torch.tensor([error is not None, *numbers], dtype=torch.float64))
            if gathered_WN[:, 0].any():
                self._fail(error, failed_rank=int(gathered_WN[:, 0].argmax()))
            return gathered_WN[:, 1:]
        finally:
            # An error holds the frames that it passes through: in one of them it would keep itself alive, and what
            # those frames hold.
            del error

    def run_on_all(self, action: Callable[[], _T]) -> _T:
        """Return what `action` returns; if it fails on one rank, raise on all, as :meth:`all_gather_numbers` does.

        `action` must not communicate with other ranks.
        """
        error: Exception | None = None
        try:
            result = action()
        except Exception as caught:
            error = caught
        try:
            self.all_gather_numbers(error=error)
        finally:
            del error  # see there
        return result

    def broadcast_bytes(self, read: Callable[[], bytes]) -> bytes:
        """Return the result of `read` on rank 0, on every rank; only rank 0 calls it, an error is raised on all."""
        data = self.run_on_all(lambda: read() if self.is_first else b"")
        num_bytes = int(self.all_gather_numbers(len(data))[0])
        if self.world_size == 1 or not num_bytes:
            return data
        values = torch.frombuffer(bytearray(data if self.is_first else num_bytes), dtype=torch.uint8)
        dist.broadcast(values, src=0)
        return values.numpy().tobytes()

    def broadcast_text(self, text: str) -> str:
        """Return the text of rank 0, on every rank."""
        return self.broadcast_bytes(lambda: text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def broadcast_flag(self, answer: bool) -> bool:
        """Return the answer of rank 0, on every rank."""
        return bool(self.all_gather_numbers(answer)[0])

    def _fail(self, error: Exception | None, failed_rank: int) -> NoReturn:
        try:
            text = "" if error is None else str(error) or repr(error)
            data = text.encode("utf-8", "surrogateescape")[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
            messages = self.gather(torch.tensor(list(data), dtype=torch.uint8))
            if error is not None:
                raise error
        finally:
            del error
        message = bytes(messages[failed_rank].tolist()).rstrip(b"\0").decode("utf-8", "ignore")
        raise RunError(f"rank {failed_rank} of {self.world_size} failed: {message}")


SINGLE = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Return the rank of this process by ``RANK``, ``WORLD_SIZE`` and ``LOCAL_WORLD_SIZE``, as torchrun sets them.

    Without the first two it is :data:`SINGLE`.

    Raises
    ------
    UsageError
        If one of them is missing, or not a number in its range.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return SINGLE
    num_here = _number(environment, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else 0
    return Ranks(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"), num_here)


def rank_device(device: torch.device, environment: Mapping[str, str]) -> torch.device:
    """Return the device of this process: on CUDA that with the index ``LOCAL_RANK``.

    Raises
    ------
    UsageError
        If this machine has more processes than GPUs, or several processes would share an MPS device.
    """
    if ranks_of(environment).world_size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"several processes cannot train on {device.type}: start one process, or choose cpu or cuda")
    number = _number(environment, "LOCAL_RANK")
    if number >= torch.cuda.device_count():
        raise UsageError(
            f"process {number} on this machine has no GPU, there are {torch.cuda.device_count()}: "
            "start as many processes as GPUs"
        )
    return torch.device("cuda", number)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(
            f"the environment variable {name} must be a number, got {text!r}: start several processes with torchrun"
        )
    return int(text)


@contextmanager
def joined_ranks(
    environment: Mapping[str, str], device: torch.device, *, init_method: str = "env://", wait_minutes: float = 30
) -> Iterator[Ranks]:
    """Set up torch's process group for the block; with a single process, do nothing.

    The group is destroyed only if the block ends well. NCCL's teardown waits for peers that wait for this rank, so that
    after an error it would hide the cause for as long as they wait. Print the error and end the process: the others
    notice that, or torchrun ends them. A process whose block has failed can join no other group.

    Parameters
    ----------
    environment : mapping
        Environment variables, see :func:`ranks_of`.
    device : torch.device
        From :func:`rank_device`. Tensors on the CPU are sent by gloo, those on CUDA by NCCL.
    init_method : str
        As for ``torch.distributed.init_process_group``.
    wait_minutes : float
        Time-out of a collective operation, > 0. A process that ends is noticed at once.

    Raises
    ------
    RunError
        If the processes do not find each other, or another one ends during the block.
    """
    ranks = ranks_of(environment)
    if ranks.world_size == 1:
        yield ranks
        return
    _init_process_group(ranks, device, init_method, timedelta(minutes=wait_minutes))
    try:
        yield ranks
    except RuntimeError as error:
        # gloo raises plain RuntimeErrors, whose messages start with the place in its source code, in brackets.
        place = str(error).partition("]")[0]
        if not isinstance(error, dist.DistError) and not (place.startswith("[") and "gloo" in place):
            raise
        raise RunError(
            f"rank {ranks.rank} of {ranks.world_size} lost contact with another one, which failed or was stopped: see "
            "its message"
        ) from error
    dist.destroy_process_group()


def _init_process_group(ranks: Ranks, device: torch.device, init_method: str, timeout: timedelta) -> None:
    if not dist.is_available():
        raise UsageError("this build of torch cannot train with several processes: start one without torchrun")
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, init_method, timeout=timeout, rank=ranks.rank, world_size=ranks.world_size)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"rank {ranks.rank} of {ranks.world_size} did not meet the others: {error}") from error
