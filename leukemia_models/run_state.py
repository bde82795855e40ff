"""What a run is told to do, and where it stands: the values that a checkpoint carries from one process to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_models.history import TrainHistory
from leukemia_models.optim import OptimizerSettings

OptimizerState = Mapping[int, Mapping[str, Any]]
"""Per parameter, in the network's order: the optimizer's tensors by name, as in torch's ``state_dict()["state"]``."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What a run does, apart from its data.

    Parameters
    ----------
    epochs : int
        At least 1.
    optimizer : OptimizerSettings
        SGD and its learning rate.
    num_classes : int
        Labels are 0 ... num_classes - 1.
    seed : int
        Drives random layers of the network, where it has any. Weights, order and augmentation have their own.
    amp : bool
        Mixed precision, on CUDA only.
    channels_last : bool
        Memory format of weights and activations; the numbers are the same within rounding.

    Raises
    ------
    UsageError
        If `epochs` is not positive, or the warm-up is longer.
    """

    epochs: int
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    num_classes: int = 2
    seed: int = 0
    amp: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"epochs must be at least 1, got {self.epochs}")
        if self.optimizer.warmup_epochs > self.epochs:
            raise UsageError(f"a warm-up of {self.optimizer.warmup_epochs} epochs is longer than {self.epochs} epochs")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, nested, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Return the settings that :meth:`to_dict` wrote, also after JSON made lists of its tuples."""
        optimizer = dict(values["optimizer"])
        optimizer["step_fractions"] = tuple(optimizer["step_fractions"])
        return cls(**{**values, "optimizer": OptimizerSettings(**optimizer)})


@dataclass(frozen=True, kw_only=True)
class EpochProgress:
    """How far an epoch has come, with its sums over all ranks' samples.

    Parameters
    ----------
    steps_done : int
        Steps behind it; a later process goes on with the next one.
    lr : float
        Learning rate of the last step.
    loss_sum : float
        Of the samples' losses, each with the weights of its step.
    num_correct, num_samples : int
        Right answers, and all.
    wait_s : float
        Seconds spent waiting for batches; with several ranks those of the one that waited longest.
    train_s : float
        Seconds of training so far, waiting included.
    """

    steps_done: int = 0
    lr: float = 0.0
    loss_sum: float = 0.0
    num_correct: int = 0
    num_samples: int = 0
    wait_s: float = 0.0
    train_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class TrainState:
    """Where a run stands, at an epoch's end or inside one. The weights are not in it: the network has them.

    Parameters
    ----------
    history : TrainHistory
        The epochs done.
    optimizer_state : mapping or None
        The optimizer's tensors. None in a checkpoint that is for judging only.
    scaler_state : mapping
        The gradient scaler's numbers; empty without float16.
    progress : EpochProgress or None
        Of the epoch after those done; None at its beginning.
    """

    history: TrainHistory
    optimizer_state: OptimizerState | None
    scaler_state: Mapping[str, Any] = field(default_factory=dict)
    progress: EpochProgress | None = None

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return len(self.history.records)
