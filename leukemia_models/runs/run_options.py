"""What runs are prepared with beside their plan: how the data are used, and what the machine is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.splitting.split_spec import SplitSpec, parse_split
from leukemia_data.stores.url import Location
from leukemia_models.devices.distributed import SINGLE, Ranks, joined_ranks, rank_device
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import choose_device

TRAIN_STATISTICS = "train"
"""Normalise by the exact mean and standard deviation of the training images."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the runs of a plan use their data.

    Parameters
    ----------
    split : str or SplitSpec
        Which samples train, validate and test: see :func:`~leukemia_data.splitting.split_spec.parse_split`.
    split_seed : int
        Draws the split, where it is drawn.
    seed : int
        Draws the first weights, the order of the images and the augmentation; at least 0.
    positive : str, optional
        The class whose recall is the sensitivity; None takes that of the cache, or what the names tell.
    allow_leak : bool
        Train although a subject is on two sides of the split; all results are then stamped.
    normalize : str or Normalization
        ``train``; or mean and standard deviation, as a value or as six numbers with commas (R,G,B,R,G,B).
    force_normalize : bool
        Use numbers that do not fit the training images, with a warning.
    """

    split: str | SplitSpec = "subject"
    split_seed: int = 0
    seed: int = 0
    positive: str | None = None
    allow_leak: bool = False
    normalize: str | Normalization = TRAIN_STATISTICS
    force_normalize: bool = False

    @property
    def split_spec(self) -> SplitSpec:
        """The split as a value.

        Raises
        ------
        UsageError
            If it is no split.
        """
        return parse_split(self.split) if isinstance(self.split, str) else self.split


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What a training takes of the machine; results on one kind of device do not depend on it.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    num_threads : int, optional
        Threads that prepare batches; None takes one a core, at most 4.
    residency : {"auto", "mapped", "ram", "device"}
        Where pixels are kept: see :func:`~leukemia_data.streams.residency.choose_residency`.
    save_minutes : float
        Save within an epoch when the last checkpoint is this old; 0 saves after every step.
    wait_minutes : float
        How long one of several processes waits for another.
    check : bool
        Compare the bytes of the shards with their digests before the training.
    cache : Path or Url, optional
        Where this machine has the cache of a run that was begun, if not where the run has written it down.
    copies : LocalCopiesChoice
        Where shards of a cache in an object store are copied to.
    """

    device: str = "auto"
    num_threads: int | None = None
    residency: str = "auto"
    save_minutes: float = 10
    wait_minutes: float = 30
    check: bool = True
    cache: Location | None = None
    copies: LocalCopiesChoice = DEFAULT_COPIES


ResumeText = Callable[[Path], str]
"""Names, for messages, the call or command that resumes what is in a folder."""


def resume_call(folder: Path) -> str:
    """Return the call that resumes what is in a folder, for those who train from Python."""
    return f"resume({str(folder)!r})"


@dataclass(frozen=True, kw_only=True)
class TrainingProcess:
    """The process that this code runs in, alone or one of several that train together.

    Attributes
    ----------
    options
        What is taken of the machine.
    device
        Where the network runs.
    ranks
        This process and the others.
    console
        Where it speaks; on other ranks than the first nothing is said.
    resume_text
        For messages about how to resume.
    is_first_here
        Whether it is the first of those on this machine.
    """

    options: MachineOptions
    device: torch.device
    ranks: Ranks = SINGLE
    console: Console = NULL_CONSOLE
    resume_text: ResumeText = resume_call
    is_first_here: bool = True


@contextmanager
def training_process(
    options: MachineOptions, environment: Mapping[str, str], console: Console, resume_text: ResumeText
) -> Iterator[TrainingProcess]:
    """Join the other processes of a training for the block: those that torchrun's variables tell of.

    Raises
    ------
    UsageError, RunError
        If there is no such device, or the processes do not meet.
    """
    device = rank_device(choose_device(options.device), environment)
    with joined_ranks(environment, device, wait_minutes=options.wait_minutes) as ranks:
        yield TrainingProcess(
            options=options,
            device=device,
            ranks=ranks,
            console=console if ranks.is_first else NULL_CONSOLE,
            resume_text=resume_text,
            is_first_here=environment.get("LOCAL_RANK", "0") == "0",
        )
