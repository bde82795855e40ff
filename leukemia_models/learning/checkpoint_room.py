"""Room on a disk that the checkpoints of a run take, known before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from leukemia_models.learning.optim import OptimizerSettings
from leukemia_models.learning.run_state import TrainSettings

# How many tensors of a parameter's shape each optimizer remembers.
_REMEMBERED: Mapping[str, int] = MappingProxyType({"sgd": 1, "adamw": 2, "ranger21": 5})
_DESCRIPTION_BYTES = 1_000_000
"""More than the JSON and the names of any network here; a history of a thousand epochs has 400 kB."""


@dataclass(frozen=True, slots=True)
class CheckpointRoom:
    """Bytes that a run's checkpoints take.

    Attributes
    ----------
    resumable_bytes
        Of one to go on from.
    judged_bytes
        Of one to judge by.
    """

    resumable_bytes: int
    judged_bytes: int

    @property
    def kept_bytes(self) -> int:
        """Of what lies there in the end: ``last``, ``best`` and ``final``."""
        return self.resumable_bytes + 2 * self.judged_bytes

    @property
    def most_bytes(self) -> int:
        """The same at its largest: a checkpoint is whole before it takes the place of the one before."""
        return self.kept_bytes + self.resumable_bytes


def checkpoint_room(model: nn.Module, settings: TrainSettings) -> CheckpointRoom:
    """Return what the checkpoints of a run take.

    Parameters
    ----------
    model : torch.nn.Module
        On any device, the meta device included.
    settings : TrainSettings
        Of the run.
    """
    parameters = sum(value.numel() * value.element_size() for value in model.parameters())
    buffers = sum(value.numel() * value.element_size() for value in model.buffers())
    judged = parameters + buffers + _DESCRIPTION_BYTES
    copies = _num_remembered(settings.optimizer) + (settings.ema_decay is not None)
    return CheckpointRoom(judged + copies * parameters, judged)


def _num_remembered(optimizer: OptimizerSettings) -> int:
    if optimizer.name == "sgd" and not optimizer.momentum:
        return 0
    return _REMEMBERED[optimizer.name]
