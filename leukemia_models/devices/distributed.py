"""Several processes that train one network: the rank of this one, and collective operations on small arrays.

A rank is one of `world_size` equal processes, each with its own rows of every batch. What is sent here are small
arrays on the host; gradients go through torch's DistributedDataParallel. With one process nothing is
sent and torch's process groups are not touched.

Every rank must make the same calls in the same order. What may fail on one of them alone goes through
:meth:`Ranks.all_gather_numbers` or :meth:`Ranks.run_on_all`, which raise on all: no rank waits for a failed one.
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
    """One process among those that train together: the one this runs in.

    Parameters
    ----------
    rank : int
        Its number, from 0.
    world_size : int
        How many there are. With more than one, torch's process group must be set up: see :func:`joined_ranks`.
    num_here : int
        How many of them are on this machine; 0 if unknown, and then all are taken to be.

    Raises
    ------
    UsageError
        If `rank` is not in ``range(world_size)``.
    """

    rank: int = 0
    world_size: int = 1
    num_here: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"a rank must be in 0 to world size - 1, got rank {self.rank} of {self.world_size}")

    @property
    def processes_here(self) -> int:
        """How many processes share this machine's memory."""
        return self.num_here or self.world_size

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that writes and prints."""
        return self.rank == 0

    def gather(self, values: Tensor) -> Tensor:
        """Return every rank's array, on every rank.

        Parameters
        ----------
        values : tensor of any shape and type, on the CPU
            The same shape and type on every rank.

        Returns
        -------
        tensor (world_size, ...)
            In the order of the ranks.
        """
        if self.world_size == 1:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(self.world_size)]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of every rank's array: the same bits on every rank. See :meth:`gather`."""
        # Added up here and not on the way, where the order could differ from rank to rank.
        return self.gather(values).sum(dim=0)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of every rank's floating-point tensor, on the device where it lies: on all ranks the same."""
        if values.device.type == "cpu":
            return self.sum(values) / self.world_size
        dist.all_reduce(values)
        return values / self.world_size

    def all_gather_numbers(self, *numbers: float, error: Exception | None = None) -> Tensor:
        """All-gather a few numbers, or raise on all ranks if one has failed.

        Parameters
        ----------
        *numbers : float
            As many on every rank.
        error : Exception, optional
            What went wrong on this rank. It must still give its numbers; they are not used.

        Returns
        -------
        float64 tensor (world_size, number of numbers)

        Raises
        ------
        Exception
            `error` itself on the ranks that gave one.
        RunError
            On the others, with the message of the first rank that failed.
        """
        if self.world_size == 1:
            if error is not None:
                raise error
            return torch.tensor([numbers], dtype=torch.float64)
        gathered_WN = self.gather(torch.tensor([error is not None, *numbers], dtype=torch.float64))
        if gathered_WN[:, 0].any():
            self._fail(error, failed_rank=int(gathered_WN[:, 0].argmax()))
        return gathered_WN[:, 1:]

    def run_on_all(self, action: Callable[[], _T]) -> _T:
        """Call `action` on every rank; if it fails on one, raise on all, as :meth:`all_gather_numbers` does.

        `action` must not communicate with other ranks itself.
        """
        error: Exception | None = None
        try:
            result = action()
        except Exception as caught:
            error = caught
        self.all_gather_numbers(error=error)
        return result

    def broadcast_bytes(self, read: Callable[[], bytes]) -> bytes:
        """Return what `read` returns on rank 0, on every rank; the others do not call it.

        An error of it is raised on all ranks.
        """
        data = self.run_on_all(lambda: read() if self.is_first else b"")
        num_bytes = int(self.all_gather_numbers(len(data))[0])
        if self.world_size == 1 or not num_bytes:
            return data
        values = torch.frombuffer(bytearray(data if self.is_first else num_bytes), dtype=torch.uint8)
        dist.broadcast(values, src=0)
        return values.numpy().tobytes()

    def broadcast_text(self, text: str) -> str:
        """Return rank 0's text, on every rank; the others' are not used."""
        return self.broadcast_bytes(lambda: text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def broadcast_flag(self, answer: bool) -> bool:
        """Return rank 0's answer, on every rank; the others' are not used."""
        return bool(self.all_gather_numbers(answer)[0])

    def _fail(self, error: Exception | None, failed_rank: int) -> NoReturn:
        messages = self.gather(_encoded("" if error is None else str(error) or repr(error), MESSAGE_BYTES))
        if error is not None:
            raise error
        raise RunError(f"rank {failed_rank} of {self.world_size} failed: {_decoded(messages[failed_rank], 'ignore')}")


SINGLE = Ranks()


def _encoded(text: str, num_bytes: int) -> Tensor:
    """Return a text as uint8, cut or filled up to a length."""
    data = text.encode("utf-8", "surrogateescape")[:num_bytes]
    return torch.tensor(list(data.ljust(num_bytes, b"\0")), dtype=torch.uint8)


def _decoded(data: Tensor, errors: str) -> str:
    return bytes(data.tolist()).rstrip(b"\0").decode("utf-8", errors)


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Return the rank of this process by ``RANK``, ``WORLD_SIZE`` and ``LOCAL_WORLD_SIZE``, which torchrun sets.

    Alone, if they are not set.

    Raises
    ------
    UsageError
        If one of them is missing, or is no number in its range.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return SINGLE
    num_here = _number(environment, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else 0
    return Ranks(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"), num_here)


def rank_device(device: torch.device, environment: Mapping[str, str]) -> torch.device:
    """Return the device of this process: on CUDA the one with the number ``LOCAL_RANK``.

    Raises
    ------
    UsageError
        If there are more processes on this machine than GPUs, or several processes are to share an MPS device.
    """
    if ranks_of(environment).world_size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"several processes cannot train on {device.type}: start one process, or choose cpu or cuda")
    number = _number(environment, "LOCAL_RANK")
    if number >= torch.cuda.device_count():
        raise UsageError(
            f"process {number} on this machine has no GPU of its own, there are {torch.cuda.device_count()}: "
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
    environment: Mapping[str, str],
    device: torch.device,
    *,
    init_method: str = "env://",
    wait_minutes: float = 30,
) -> Iterator[Ranks]:
    """Set up torch's process group for the block, and take it down after it.

    Parameters
    ----------
    environment : mapping
        Holds ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, as torchrun sets them. Without them, or with a world size
        of 1, nothing is set up.
    device : torch.device
        Where the network will run, from :func:`rank_device`. Host arrays travel by gloo; what lies on CUDA by NCCL.
    init_method : str
        Where the processes meet, as for ``torch.distributed.init_process_group``.
    wait_minutes : float
        Time-out of a collective operation, > 0. A process that ends is noticed at once.

    Raises
    ------
    RunError
        If the processes do not meet, or another one is gone in the middle of the work.
    """
    ranks = ranks_of(environment)
    if ranks.world_size == 1:
        yield ranks
        return
    _set_up(ranks, device, init_method, timedelta(minutes=wait_minutes))
    try:
        yield ranks
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        raise RunError(
            f"rank {ranks.rank} of {ranks.world_size} lost contact with another one: that one has failed or was "
            "stopped, and its own message says why"
        ) from error
    finally:
        dist.destroy_process_group()


def _set_up(ranks: Ranks, device: torch.device, init_method: str, timeout: timedelta) -> None:
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


def _is_lost_peer(error: RuntimeError) -> bool:
    # gloo has no exception of its own: its messages start with the place in its sources, in brackets.
    place = str(error).partition("]")[0]
    return isinstance(error, dist.DistError) or (place.startswith("[") and "gloo" in place)
