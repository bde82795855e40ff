"""Training runs of a few steps, and an observer that keeps its calls."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from torch import Tensor, nn

from leukemia_models.devices.normalization import BatchSource
from leukemia_models.training.history import EpochRecord, TrainHistory
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.train import Observer, fit

from .fakes import (
    CPU,
    NORMALIZATION,
    copied_state,
    flipped_by_epoch_and_sample,
)

FAST = OptimizerSettings(lr=0.05)


class Recorder(Observer):
    """Keeps its calls; states and weights are copied, as for a checkpoint."""

    def __init__(self, model: nn.Module, state_after: tuple[tuple[int, int], ...] = ()) -> None:
        self.model = model
        self.state_after = state_after
        self.saved: list[tuple[TrainState, dict[str, Tensor]]] = []
        self.heard: list[tuple[object, ...]] = []
        self.states: list[TrainState] = []
        self.weights: list[dict[str, Tensor]] = []
        self.best: list[int] = []

    def on_epoch_start(self, epoch: int, num_steps: int, steps_done: int) -> None:
        self.heard.append(("start", epoch, num_steps, steps_done))

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        self.heard.append(("step", epoch, step, num_samples))

    def wants_state(self, epoch: int, step: int) -> bool:
        return (epoch, step) in self.state_after

    def on_state(self, state: TrainState) -> None:
        self.heard.append(("state", state.epochs_done + 1, state.progress.steps_done))
        self.saved.append((copy.deepcopy(state), copied_state(self.model)))

    def on_epoch_end(self, record: EpochRecord, state: TrainState, is_best: bool) -> None:
        self.heard.append(("end", record.epoch))
        self.states.append(copy.deepcopy(state))
        self.weights.append(copied_state(self.model))
        if is_best:
            self.best.append(record.epoch)


def train(
    model: nn.Module,
    source: BatchSource,
    valid: BatchSource | None = None,
    *,
    epochs: int = 2,
    optimizer: OptimizerSettings = FAST,
    start: TrainState | None = None,
    observer: Observer | None = None,
    compile_backend: str = "eager",
    clean_source: BatchSource | None = None,
    **settings: Any,
) -> TrainHistory:
    ticks = itertools.count()
    return fit(
        model,
        source,
        valid,
        TrainSettings(epochs=epochs, optimizer=optimizer, seed=5, **settings),
        NORMALIZATION,
        flipped_by_epoch_and_sample,
        CPU,
        observer,
        start,
        clock=lambda: float(next(ticks)),
        compile_backend=compile_backend,
        clean_source=clean_source,
    )


def without_times(history: TrainHistory) -> list[dict[str, object]]:
    """Return the epochs' numbers, without times and without sizes where there are none."""
    times = {"seconds": 0, "images_per_s": 0, "data_wait_share": 0}
    records = [{**record.to_dict(), **times} for record in history.records]
    return [{name: value for name, value in record.items() if (name, value) != ("size_px", None)} for record in records]


def epoch_record(epoch: int, **values: float | None) -> EpochRecord:
    """An epoch of a made-up run."""
    usual = {
        "lr": 0.1,
        "train_loss": 0.7,
        "train_accuracy": 0.6,
        "valid_loss": 0.6,
        "valid_accuracy": 0.7,
        "valid_balanced_accuracy": 0.6,
        "valid_weighted_f1": 0.6,
        "valid_auroc": 0.7,
        "seconds": 2.0,
        "images_per_s": 50.0,
    }
    return EpochRecord(epoch=epoch, **{**usual, **values})
