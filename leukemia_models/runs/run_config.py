"""What a run is told to do, as options and as run.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import (
    COUNT,
    OBJECT,
    OBJECT_OR_NONE,
    TEXT,
    WHOLE_NUMBER,
    Kind,
    parse_json,
    require_kinds,
)
from leukemia_data.splitting.seen_samples import SeenBefore
from leukemia_data.splitting.split_spec import SplitSpec, parse_split
from leukemia_data.stores.url import Location
from leukemia_data.streams.batch import micro_batch_size
from leukemia_models.devices.distributed import SINGLE, Ranks, joined_ranks, rank_device
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import choose_device
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.training_plan import EvaluationSettings

RUN_FORMAT = "leukemia-cells run"
RUN_FORMAT_VERSION = 5
"""2 added the augmentation and the sampling; 3 the start, the judging and the plan's stage; 4 the shares; 5 the
positive class, and what the weights to start from have seen."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run was told, apart from where it is written.

    Attributes
    ----------
    cache_dir
        The cache it trains from, as an absolute path.
    data_fingerprint, data_digest
        Identity of the cache's preprocessing, and of its content.
    split, split_seed
        Name of the split and the seed that drew it.
    normalization
        ``mean`` and ``std``, three numbers each.
    augmentation
        All parameters, as JSON values; None in runs of earlier versions, which flipped and transposed.
    sampling
        One of :data:`~leukemia_models.training.training_plan.SAMPLINGS`.
    start
        ``scratch``, or the file its first weights came from; a relative one is relative to the run's folder.
    judging
        The :class:`~leukemia_models.training.training_plan.EvaluationSettings` as JSON values.
    stage
        Its name in the plan it belongs to; empty for a run by options alone.
    class_weights
        ``none`` or ``balanced``: where the numbers in the settings come from.
    positive
        The class whose recall is the sensitivity. Empty in runs of earlier versions: the second class.
    seen_before
        Where the split meets what the weights to start from have seen; None where an earlier version did not look.
    """

    model_name: str
    cache_dir: str
    data_fingerprint: str
    data_digest: str
    split: str
    split_seed: int
    batch_size: int
    normalization: Mapping[str, Sequence[float]]
    settings: TrainSettings
    augmentation: Mapping[str, Any] | None = None
    sampling: str = "uniform"
    start: str = "scratch"
    judging: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""
    class_weights: str = "none"
    positive: str = ""
    seen_before: SeenBefore | None = None

    @property
    def images_at_a_time(self) -> int:
        """Images that all processes together work on at a time."""
        return micro_batch_size(self.batch_size, self.settings.accumulate)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        values = {
            "settings": self.settings.to_dict(),
            "seen_before": None if self.seen_before is None else asdict(self.seen_before),
        }
        return {"format": RUN_FORMAT, "format_version": RUN_FORMAT_VERSION, **vars(self), **values}


_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "model_name": TEXT,
        "cache_dir": TEXT,
        "data_fingerprint": TEXT,
        "data_digest": TEXT,
        "split": TEXT,
        "split_seed": WHOLE_NUMBER,
        "batch_size": COUNT,
        "normalization": OBJECT,
        "augmentation": OBJECT_OR_NONE,
        "sampling": TEXT,
        "start": TEXT,
        "judging": OBJECT,
        "stage": TEXT,
        "class_weights": TEXT,
        "positive": TEXT,
        "seen_before": OBJECT_OR_NONE,
    }
)


def save_config(folder: RunFolder, config: RunConfig) -> None:
    """Write ``run.json`` atomically."""
    write_text(folder.config, json.dumps(config.to_dict(), indent=2) + "\n")


def load_config(folder: RunFolder) -> RunConfig:
    """Read ``run.json``.

    Raises
    ------
    RunError
        If the folder holds no run, or one of another format.
    """
    try:
        content = parse_json(folder.config.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{folder.root} holds no run: there is no {folder.config.name} in it") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder.config} cannot be read: {error}") from error
    try:
        if content["format"] != RUN_FORMAT or content["format_version"] not in range(1, RUN_FORMAT_VERSION + 1):
            raise RunError(f"{folder.config}: expected {RUN_FORMAT!r} version {RUN_FORMAT_VERSION}")
        return parse_config(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{folder.config} is damaged ({error!r}): its run cannot be used; start a new one") from error


def parse_config(content: Mapping[str, Any]) -> RunConfig:
    """Return what :meth:`RunConfig.to_dict` gave, after a way through JSON.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is something else.
    """
    content = {name: value for name, value in content.items() if name not in ("format", "format_version")}
    require_kinds(content, _KINDS)
    Normalization.of(**content["normalization"])
    EvaluationSettings.from_dict(content.get("judging", {}))
    seen = content.get("seen_before")
    values = {
        "settings": TrainSettings.from_dict(content["settings"]),
        "seen_before": None if seen is None else SeenBefore.from_dict(seen),
    }
    return RunConfig(**{**content, **values})


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
