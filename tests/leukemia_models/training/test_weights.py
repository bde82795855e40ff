from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leukemia_data.errors import RunError
from leukemia_models.training.checkpoint import Checkpoint, require_trainable
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainState, WeightAverageState


def test_a_non_finite_optimizer_or_average_cannot_be_resumed() -> None:
    weights = {"layer.weight": torch.zeros(2)}
    bad = torch.tensor([0.0, float("nan")])
    states = {
        "the optimizer's momentum_buffer of parameter 0, 1 of 2": TrainState(
            TrainHistory(), {0: {"momentum_buffer": bad, "step": torch.tensor(3.0)}}
        ),
        "average of layer.weight, 1 of 2": TrainState(
            TrainHistory(), None, average=WeightAverageState({"layer.weight": bad}, 1)
        ),
    }
    for words, state in states.items():
        with pytest.raises(RunError, match=words):
            require_trainable(Checkpoint(Path("last.safetensors"), None, state, weights))
