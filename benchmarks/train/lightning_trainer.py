"""Lightning's Trainer on samples of our cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from train.peer import Epoch, Setting, Steps, TrainPeer
from train.torch_loops import NUM_WARM_STEPS, cached_loaders


class Cells(lightning.LightningModule):
    """torchvision's ResNet-18 with the first report's optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torchvision.models.resnet18(num_classes=2)
        self.num_right = 0

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the loss."""
        images_BCHW, labels_B = batch
        return functional.cross_entropy(self.network(images_BCHW), labels_B)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        """Count the right answers."""
        images_BCHW, labels_B = batch
        self.num_right += int((self.network(images_BCHW).argmax(dim=1) == labels_B).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.005, momentum=0.9, weight_decay=1e-4)


class StepTimes(lightning.Callback):
    """Times the steps after the first ones, and the pauses between them."""

    def __init__(self) -> None:
        self.num_images, self.num_steps, self.wait_s = 0, 0, 0.0
        self.started_s = self.ended_s = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: list[Tensor], index: int) -> None:  # noqa: ANN401
        """Count the pause."""
        if self.num_steps >= NUM_WARM_STEPS:
            self.wait_s += time.perf_counter() - self.ended_s

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ANN401
        module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401
        batch: list[Tensor],
        index: int,
    ) -> None:
        """Count the step."""
        self.num_steps += 1
        self.ended_s = time.perf_counter()
        if self.num_steps == NUM_WARM_STEPS:
            self.started_s = self.ended_s
        elif self.num_steps > NUM_WARM_STEPS:
            self.num_images += len(batch[1])


class Accuracies(lightning.Callback):
    """Reports each validation."""

    def __init__(self, num_valid: int, report: Callable[[Epoch], None]) -> None:
        self._num_valid, self._report, self._started_s = num_valid, report, time.perf_counter()

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:  # noqa: ANN401
        """Report the epoch."""
        accuracy, module.num_right = module.num_right / self._num_valid, 0
        self._report(Epoch(trainer.current_epoch + 1, time.perf_counter() - self._started_s, accuracy))


class LightningPeer(TrainPeer):
    """One process, CPU or whatever Lightning finds, without logger, checkpoints and sanity check."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loaders = cached_loaders(setting)

    def steps(self, num_steps: int) -> Steps:
        """Fit for a number of steps."""
        times = StepTimes()
        trainer = self._trainer([times], max_steps=NUM_WARM_STEPS + num_steps, limit_val_batches=0)
        trainer.fit(Cells(), self._loaders[0])
        return Steps(times.num_images, times.ended_s - times.started_s, times.wait_s)

    def train(self, seed: int, report: Callable[[Epoch], None]) -> None:
        """Fit, and report every validation."""
        accuracies = Accuracies(len(self.setting.valid_N), report)
        lightning.seed_everything(seed, verbose=False)
        self._trainer([accuracies], max_epochs=100).fit(Cells(), *self._loaders)

    def _trainer(self, callbacks: list[lightning.Callback], **options: Any) -> lightning.Trainer:  # noqa: ANN401
        return lightning.Trainer(
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )
