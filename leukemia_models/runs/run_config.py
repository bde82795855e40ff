"""Settings of a run, as options and as ``run.json``; the process that trains it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import torch

from leukemia_data.caches.opening import DEFAULT_COPIES, LocalCopiesChoice
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import RunError
from leukemia_data.files.atomic import write_text
from leukemia_data.files.documents import (
    COUNT,
    FLAG,
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
from leukemia_models.devices.precision import all_compute_in_bf16, choose_device, current
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.training_plan import EvaluationSettings

RUN_FORMAT = "leukemia-cells run"
RUN_FORMAT_VERSION = 6
"""2 added the augmentation and the sampling; 3 the start, the judging and the plan's stage; 4 micro-batches; 5 the
positive class and seen_before; 6 the draws by occurrence."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a run, as in ``run.json``.

    Attributes
    ----------
    cache_dir
        Absolute path or address of its cache.
    data_fingerprint, data_digest
        Identity of the cache's preprocessing, and of its samples.
    normalization
        ``mean`` and ``std``, three numbers each.
    augmentation
        All parameters; None in runs of earlier versions, which flipped and transposed.
    sampling
        One of :data:`~leukemia_models.training.training_plan.SAMPLINGS`.
    draws_by_occurrence
        Whether a sample that is drawn twice in an epoch is augmented differently; False in runs of earlier versions.
    start
        ``scratch``, or the file of the initial weights, absolute or relative to the run's folder.
    judging
        The :class:`~leukemia_models.training.training_plan.EvaluationSettings` as JSON values.
    stage
        Name of its stage in a training plan; empty for a run without a plan.
    class_weights
        ``none`` or ``balanced``; the numbers are in the settings.
    positive
        The class whose recall is the sensitivity; empty in runs of earlier versions: the second class.
    start_report
        What was taken from the file of the initial weights; empty without one, and in runs of earlier versions.
    seen_before
        Overlap of the split with the training data of the initial weights; None in runs of earlier versions.
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
    draws_by_occurrence: bool = False
    start: str = "scratch"
    judging: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""
    class_weights: str = "none"
    positive: str = ""
    start_report: str = ""
    seen_before: SeenBefore | None = None

    @property
    def images_at_a_time(self) -> int:
        """Images of a micro-batch of all processes together."""
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
        "draws_by_occurrence": FLAG,
        "start": TEXT,
        "judging": OBJECT,
        "stage": TEXT,
        "class_weights": TEXT,
        "positive": TEXT,
        "start_report": TEXT,
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
    """Return the settings of a :meth:`RunConfig.to_dict` from JSON.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a value is missing or of a wrong kind.
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


TRAIN_STATISTICS, IMAGENET_STATISTICS = "train", "imagenet"
"""Normalise by the exact mean and standard deviation of the training images."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How the runs of a plan use their data.

    Parameters
    ----------
    split : str or SplitSpec
        As for :func:`~leukemia_data.splitting.split_spec.parse_split`.
    seed : int
        Of the initial weights, the order of the images and the augmentation; at least 0.
    positive : str, optional
        The class whose recall is the sensitivity; None takes that of the cache, else decides by known names.
    allow_leak : bool
        Train although a subject is on two sides of the split; all results are stamped.
    normalize : str or Normalization
        ``train``; ``imagenet``, for weights that were trained with it; or mean and standard deviation, as a value or as
        six numbers with commas (R,G,B,R,G,B).
    force_normalize : bool
        Warn of numbers that do not fit the training images instead of refusing them.
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
        """The split as a value; raises a UsageError if it is no split."""
        return parse_split(self.split) if isinstance(self.split, str) else self.split


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """How a training uses the machine; results on one kind of device do not depend on it.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    num_threads : int, optional
        Threads that prepare batches; None takes one per core, at most 4.
    residency : {"auto", "mapped", "ram", "device"}
        Where pixels are kept: see :func:`~leukemia_data.streams.residency.choose_residency`.
    save_minutes : float
        Age of the last checkpoint at which an epoch is interrupted to save; 0 saves after every step.
    wait_minutes : float
        Timeout of one of several processes for another.
    check : bool
        Compare the shards with their digests before the training.
    cache : Path or Url, optional
        The cache of a run to resume, if this machine has it elsewhere than ``run.json`` says.
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
"""Returns the call or command, for messages, that resumes what is in a folder."""
ALONE: Mapping[str, str] = MappingProxyType({})
"""Environment of a process that trains alone."""


def resume_call(folder: Path) -> str:
    """Return the Python call that resumes what is in a folder."""
    return f"resume({str(folder)!r})"


@dataclass(frozen=True, kw_only=True)
class TrainingProcess:
    """The current process, alone or one of several that train together.

    Attributes
    ----------
    console
        Silent on other ranks than the first.
    is_first_here
        Whether it is the first process on this machine.
    has_bf16
        Whether the devices of all processes compute in bfloat16; None asks that of this one.
    """

    options: MachineOptions
    device: torch.device
    ranks: Ranks = SINGLE
    console: Console = NULL_CONSOLE
    resume_text: ResumeText = resume_call
    is_first_here: bool = True
    has_bf16: bool | None = None


class ProcessArguments(TypedDict, total=False):
    """Arguments of :func:`training_process`, which each function that trains passes on."""

    machine: MachineOptions
    environment: Mapping[str, str]
    resume_text: ResumeText
    console: Console


@contextmanager
def training_process(
    *,
    machine: MachineOptions = MachineOptions(),
    environment: Mapping[str, str] = ALONE,
    resume_text: ResumeText = resume_call,
    console: Console = NULL_CONSOLE,
) -> Iterator[TrainingProcess]:
    """Join the processes of a training for the block.

    Parameters
    ----------
    environment
        With torchrun's variables where several processes train together.

    Raises
    ------
    UsageError, RunError
        If there is no such device, or another process does not join in time.
    """
    device = rank_device(choose_device(machine.device), environment)
    with current(device), joined_ranks(environment, device, wait_minutes=machine.wait_minutes) as ranks:
        yield TrainingProcess(
            options=machine,
            device=device,
            ranks=ranks,
            console=console if ranks.is_first else NULL_CONSOLE,
            resume_text=resume_text,
            is_first_here=environment.get("LOCAL_RANK", "0") == "0",
            has_bf16=all_compute_in_bf16(device, ranks),
        )
