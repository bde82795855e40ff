"""Our own training, as `ltrain train` runs it: with checkpoints, history and figures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

import leukemia_models as lm
from leukemia_data.augmenting.augment import Augmenter
from leukemia_data.caches.cache import open_cache
from leukemia_data.console import NullProgress, Progress
from leukemia_data.streams.loader import BatchStream
from leukemia_models.devices.normalization import Normalization
from leukemia_models.devices.precision import choose_device
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.run_folder import find_runs
from leukemia_models.training.plan_file import load_plan
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.train import Observer, fit
from leukemia_models.training.training_plan import TrainingPlan, single_stage_plan, with_settings
from train.peer import SPLIT, Epoch, Setting, Steps, TrainPeer
from train.torch_loops import NUM_WARM_STEPS


class EpochLines:
    """A console that calls back at each line on an epoch."""

    def __init__(self, on_epoch: Callable[[], None]) -> None:
        self._on_epoch = on_epoch

    def note(self, text: str) -> None:
        """Call back."""
        if text.startswith("epoch "):
            self._on_epoch()

    def warn(self, text: str) -> None:
        """Drop a warning."""

    def progress(
        self, total: int | None, what: str, unit: str = "img", done: int = 0
    ) -> AbstractContextManager[Progress]:
        """Show nothing."""
        return nullcontext(NullProgress())


class StepTimes(Observer):
    """The times at which steps ended."""

    def __init__(self) -> None:
        self.ended_s: list[float] = []

    def on_step(self, epoch: int, step: int, loss: float, num_samples: int) -> None:
        """Note the time."""
        self.ended_s.append(time.perf_counter())


class FirstSteps:
    """The first steps of an epoch, with the time spent waiting for them."""

    def __init__(self, stream: BatchStream, num_steps: int) -> None:
        self._stream, self._num_steps, self.wait_s = stream, num_steps, 0.0

    def __len__(self) -> int:
        return self._num_steps

    def epoch(self, epoch: int, first_step: int = 0) -> Any:  # noqa: ANN401
        """Yield the batches."""
        batches = islice(self._stream.epoch(epoch, first_step), self._num_steps)
        for number in range(self._num_steps):
            asked_s = time.perf_counter()
            batch = next(batches)
            if number >= NUM_WARM_STEPS:
                self.wait_s += time.perf_counter() - asked_s
            yield batch


class OursPeer(TrainPeer):
    """A run by options, or by a shipped plan."""

    def __init__(self, setting: Setting, *, plan: str | None = None, precision: str = "auto") -> None:
        super().__init__(setting)
        chosen = single_stage_plan(model="resnet18") if plan is None else load_plan(plan)
        self._plan: TrainingPlan = with_settings(chosen, precision=precision)

    def steps(self, num_steps: int) -> Steps:
        """Train through the library's loop, with the stream, the augmentation and the settings of the plan."""
        setting, stage, device = self.setting, self._plan.stages[0], choose_device("auto")
        normalization = Normalization(setting.mean, setting.std)
        with open_cache(setting.cache_dir) as cache, self._stream(cache, stage.batch_size) as stream:
            source, times = FirstSteps(stream, NUM_WARM_STEPS + num_steps), StepTimes()
            augmenter = Augmenter(
                stage.augmentation, seed=0, mean=normalization.mean, std=normalization.std, device=device
            )
            model = build_model(self._plan.model_name, 2)
            settings = TrainSettings(epochs=1, precision=stage.settings.precision)
            fit(model, source, None, settings, normalization, augmenter, device, times)
        seconds = times.ended_s[-1] - times.ended_s[NUM_WARM_STEPS - 1]
        return Steps(num_steps * stage.batch_size, seconds, source.wait_s)

    def _stream(self, cache: Any, batch_size: int) -> BatchStream:  # noqa: ANN401
        return BatchStream(cache, self.setting.train_N, batch_size=batch_size, seed=0, drop_last=True)

    def train(self, seed: int, report: Callable[[Epoch], None]) -> None:
        """Train a run in a temporary folder."""
        started_s = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
            out = Path(folder) / "run"

            def on_epoch() -> None:
                seconds = time.perf_counter() - started_s
                row = pd.read_csv(find_runs(out)[0].history).iloc[-1]
                is_whole = pd.isna(row.get("size_px")) or row["size_px"] == self.setting.size_px
                report(Epoch(int(row["epoch"]), seconds, float(row["valid_accuracy"]) if is_whole else None))

            lm.train(
                self.setting.cache_dir,
                out=out,
                plan=self._plan,
                split=SPLIT,
                allow_leak=True,
                seed=seed,
                verbose=EpochLines(on_epoch),
            )
