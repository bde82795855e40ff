from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.training.checkpoint_file import checkpoint_room
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.train import Observer

from ..fakes import NORMALIZATION, fake_source
from ..small_training import train


class Keeper(Observer):
    state: TrainState

    def on_epoch_end(self, record: object, state: TrainState, is_best: bool) -> None:
        self.state = state


@pytest.mark.parametrize(
    ("optimizer", "ema"),
    [
        (OptimizerSettings(), None),
        (OptimizerSettings(momentum=0.0), 0.9),
        (OptimizerSettings(name="adamw"), 0.9),
        (OptimizerSettings(name="ranger21"), None),
    ],
    ids=["sgd", "sgd without momentum, average", "adamw, average", "ranger21"],
)
def test_room_is_that_of_real_checkpoints(tmp_path: Path, optimizer: OptimizerSettings, ema: float | None) -> None:
    """Within the megabyte that is allowed for the description."""
    model, keeper = build_model("resnet18-narrow", 2), Keeper()
    schedule = {"schedule": ScheduleSettings(name="constant")} if optimizer.schedules_itself else {}
    # Ranger21 remembers the last of its five after some steps.
    train(model, fake_source(*[2] * 6), epochs=1, optimizer=optimizer, observer=keeper, ema_decay=ema, **schedule)
    settings = TrainSettings(epochs=1, optimizer=optimizer, ema_decay=ema, **schedule)
    info = CheckpointInfo(
        model_name="resnet18-narrow",
        classes=("hem", "all"),
        size_px=32,
        normalization=NORMALIZATION,
        recipe={},
        data_fingerprint="",
        split_kind="subject",
        settings=settings,
    )
    with torch.device("meta"):
        room = checkpoint_room(build_model("resnet18-narrow", 2), settings)
    for resumable, expected in ((True, room.resumable_bytes), (False, room.evaluation_bytes)):
        path = tmp_path / f"{resumable}.safetensors"
        save_checkpoint(path, model, info, keeper.state, resumable=resumable)
        assert 0 < expected - path.stat().st_size < 1_000_000
    # `last`, `best` and `final`, and a new `last` before it takes the old one's place.
    written = [path.stat().st_size for path in tmp_path.iterdir()]
    assert 0 < room.max_bytes - 2 * sum(written) < 4_000_000
