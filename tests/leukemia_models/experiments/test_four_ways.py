from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.experiments.four_ways import (
    WAYS,
    EpochScores,
    draw_batchnorm,
    predict_in_train_mode,
    train_four_ways,
)
from leukemia_models.training.batchnorm_report import BatchNormScores
from leukemia_models.training.batchnorm_statistics import reestimate_batchnorm
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.train import fit

from ..fakes import (
    CPU,
    NORMALIZATION,
    FakeBatch,
    FakeSource,
    copied_state,
    fake_batch,
    fake_source,
    normalized,
    same_state,
    tiny_network,
)

SETTINGS = TrainSettings(epochs=2, optimizer=OptimizerSettings(lr=0.05), seed=3)
NO_CHANGE = load_augmentation("none")


def run(model: nn.Module, valid: FakeSource, steps: list[int] | None = None) -> list[EpochScores]:
    return train_four_ways(
        model,
        fake_source(8, 8, 8),
        FakeSource([fake_batch(8, 7), fake_batch(6, 8)]),
        valid,
        SETTINGS,
        NORMALIZATION,
        NO_CHANGE,
        CPU,
        on_step=steps.append if steps is not None else None,
    )


def test_four_ways_are_what_their_names_say() -> None:
    model, steps = tiny_network(seed=2), []
    valid = FakeSource([fake_batch(10, 20), fake_batch(6, 21)])
    scores = run(model, valid, steps)
    assert [epoch_scores.epoch for epoch_scores in scores] == [1, 2]
    assert steps == [1] * 6

    # The network is that of the last epoch.
    def evaluated(network: nn.Module) -> BatchNormScores:
        return BatchNormScores.of(predict_probabilities(network, valid.epoch(1), NORMALIZATION, CPU))

    assert scores[-1].eval_at_once == evaluated(model)
    changed = copy.deepcopy(model)
    in_train_mode = predict_in_train_mode(changed, valid.epoch(1), NORMALIZATION, CPU)
    assert scores[-1].train_mode == BatchNormScores.of(in_train_mode)
    assert scores[-1].eval_after_train_mode == evaluated(changed)
    clean = [fake_batch(6, 8), fake_batch(8, 7)]  # in the order of epoch 1
    reestimate_batchnorm(model, clean, NORMALIZATION, CPU).apply(model)
    assert scores[-1].eval_reestimated == evaluated(model)
    json.dumps([epoch_scores.to_dict() for epoch_scores in scores], allow_nan=False)


def test_evaluating_does_not_disturb_the_training() -> None:
    evaluated, plain = tiny_network(seed=2), tiny_network(seed=2)
    run(evaluated, fake_source(6))
    fit(
        plain,
        fake_source(8, 8, 8),
        None,
        SETTINGS,
        NORMALIZATION,
        lambda images_BHWC, epoch, indices_B, occurrences_B: normalized(images_BHWC),
        CPU,
    )
    for name, value in copied_state(plain).items():
        torch.testing.assert_close(evaluated.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    again = tiny_network(seed=2)
    run(again, fake_source(4, 5))
    assert same_state(copied_state(evaluated), copied_state(again))


def test_a_prediction_depends_on_the_batch_in_training_mode_and_not_in_eval_mode() -> None:
    model, image = tiny_network(), fake_batch(1, 1)
    batches = []
    for seed in (2, 3):
        others = fake_batch(5, seed)
        others.images_BHWC.div_(seed, rounding_mode="floor")
        pairs = zip(vars(image).values(), vars(others).values(), strict=True)
        batches.append(FakeBatch(*(torch.cat(pair) for pair in pairs)))
    first, second = (predict_probabilities(model, [batch], NORMALIZATION, CPU) for batch in batches)
    np.testing.assert_allclose(first.probabilities_NK[0], second.probabilities_NK[0], atol=1e-6)
    first, second = (predict_in_train_mode(copy.deepcopy(model), [batch], NORMALIZATION, CPU) for batch in batches)
    assert abs(first.probabilities_NK[0] - second.probabilities_NK[0]).max() > 0.01


def scores_of(epoch: int, accuracies: tuple[float, ...]) -> EpochScores:
    ways = {
        way: BatchNormScores(
            loss=1 - accuracy / 2,
            accuracy=accuracy,
            balanced_accuracy=accuracy,
            share_positive=accuracy / 2,
            one_class_warning=None,
        )
        for way, accuracy in zip(WAYS, accuracies, strict=True)
    }
    return EpochScores(epoch=epoch, train_accuracy=0.5, **ways)


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_figure_shows_every_way_in_every_panel(num_epochs: int) -> None:
    epochs = [scores_of(epoch, (0.1 * epoch, 0.6, 0.7, 0.8)) for epoch in range(1, num_epochs + 1)]
    figure = draw_batchnorm(epochs, share_of_labels=0.7, title="a title", stamp="patient-mixed")
    assert figure.get_suptitle() == "a title"
    assert "patient-mixed" in figure.get_supxlabel()
    quantities = ("accuracy", "share_positive", "loss")
    for axes, quantity in zip(figure.axes, quantities, strict=True):
        curves = axes.get_lines()[: len(WAYS)]
        for way, curve in zip(WAYS, curves, strict=True):
            assert list(curve.get_ydata()) == [getattr(getattr(scores, way), quantity) for scores in epochs]
        assert len({curve.get_linestyle() for curve in curves}) == len(WAYS)
        assert len({curve.get_marker() for curve in curves}) == len(WAYS)
    assert len(figure.axes[-1].get_legend().get_texts()) == len(WAYS)
