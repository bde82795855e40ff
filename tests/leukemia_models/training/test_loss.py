from __future__ import annotations

import pytest
import torch
from torch import nn

from leukemia_models.devices.distributed import SINGLE
from leukemia_models.training.losses import StepLabels, StepTotals, TrainingLoss, isolated_random_state
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings

from ..fakes import CPU, fake_source, flipped_by_epoch_and_sample, tiny_network
from ..small_training import train

STANDING_STILL = OptimizerSettings(lr=1e-20)


@pytest.mark.parametrize("weights", [None, (1.0, 2.5, 0.3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mean_and_gradient_are_those_of_torchs_loss(weights: tuple[float, ...] | None, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(7, 3, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (7,), generator=generator)
    settings = TrainSettings(epochs=1, num_classes=3, class_weights=weights, label_smoothing=smoothing)
    loss = TrainingLoss(settings, CPU)
    known = loss.of_labels([labels[:3], labels[3:]])
    assert known.num_rows == 7
    found = loss.mean(loss.sum(logits, labels), StepTotals(7, known.weight), SINGLE)
    oracle = nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights), label_smoothing=smoothing)
    expected = oracle(logits, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found, expected))
    )


def test_labels_outside_reach_the_one_who_can_name_them() -> None:
    loss = TrainingLoss(TrainSettings(epochs=1, class_weights=(1.0, 2.0)), CPU)
    known = loss.of_labels([torch.tensor([-1, 0]), torch.tensor([5]), torch.tensor([], dtype=torch.int64)])
    assert known == StepLabels(num_rows=3, lowest=-1, highest=5, weight=4, num_empty=1)
    assert loss.of_labels([torch.tensor([], dtype=torch.int64)]) == StepLabels(num_empty=1)


def test_reported_loss_is_the_weighted_mean_over_the_epoch() -> None:
    """Constant weights: the mean over all samples at once."""
    source, weights = fake_source(8, 3, 6), (0.5, 4.0)
    model = tiny_network().train()
    history = train(model, source, epochs=1, optimizer=STANDING_STILL, class_weights=weights, label_smoothing=0.2)
    model = tiny_network().train()
    oracle = nn.CrossEntropyLoss(torch.tensor(weights), label_smoothing=0.2, reduction="none")
    total = weight = 0.0
    for batch in source.epoch(1):
        losses = oracle(model(flipped_by_epoch_and_sample(batch.images_BHWC, 1, batch.indices_B)), batch.labels_B)
        total += losses.sum().item()
        weight += sum(weights[label] for label in batch.labels_B)
    assert history.records[0].train_loss == pytest.approx(total / weight, rel=1e-5)


def test_the_random_state_of_mps_is_restored_after_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["before"]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)

    def draw() -> None:
        with isolated_random_state(torch.device("mps")):
            states.append("changed")
            raise KeyError

    with pytest.raises(KeyError):
        draw()
    assert states == ["before", "changed", "before"]
