from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from leukemia_data.errors import RunError
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.training.batchnorm_statistics import reestimate_batchnorm
from leukemia_models.training.weights import WeightAverage, evaluation_weights

from ..fakes import CPU, NORMALIZATION, copied_state, fake_source, same_state, tiny_network
from ..small_training import Recorder, train, without_times


def test_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    walk = np.random.default_rng(1).normal(size=40).tolist()
    model.weight.data.fill_(walk[0])
    average, by_hand = WeightAverage(model, 0.7), walk[0]
    for step, weight in enumerate(walk[1:]):
        model.weight.data.fill_(weight)
        average.update(model)
        decay = min(0.7, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * weight
        assert average.state()["weight"].item() == pytest.approx(by_hand, rel=1e-5)
    assert average.num_updates == 39
    assert model.weight.item() == pytest.approx(walk[-1])


def test_network_has_averaged_parameters_and_the_buffers_of_now() -> None:
    model = tiny_network().to(memory_format=torch.channels_last)
    average = WeightAverage(model, 0.5)
    model(torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    average.update(model)
    network = average.network(model)
    for (name, mixed), own in zip(network.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mixed, own - 0.1, msg=name)
    for (name, found), own in zip(network.named_buffers(), model.named_buffers(), strict=True):
        assert torch.equal(found, own[1]), name
    assert network is average.network(model)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_average_of_another_network_is_refused() -> None:
    average = WeightAverage(tiny_network(), 0.9)
    with pytest.raises(RunError, match="does not fit"):
        average.restore({"weight": torch.zeros(1)}, 3)


@pytest.mark.parametrize("stop", [(1, 1), (1, 3), (2, 2)], ids=str)
def test_run_with_an_average_resumes_bit_by_bit(stop: tuple[int, int]) -> None:
    whole = tiny_network()
    recorder = Recorder(whole, (stop,))
    history = train(whole, fake_source(5, 6, 4), fake_source(6), epochs=3, ema_decay=0.8, observer=recorder)
    ((start, weights),) = recorder.saved
    resumed, again = tiny_network(seed=9), Recorder(tiny_network())
    resumed.load_state_dict(weights)
    again.model = resumed
    other = train(resumed, fake_source(5, 6, 4), fake_source(6), epochs=3, ema_decay=0.8, observer=again, start=start)
    assert same_state(copied_state(resumed), copied_state(whole))
    assert without_times(other) == without_times(history)  # validation is by the average
    first, second = recorder.states[-1].average, again.states[-1].average
    assert first.num_updates == second.num_updates == 9
    assert same_state(dict(first.tensors), dict(second.tensors))


def test_average_is_evaluated_and_changes_nothing_in_training() -> None:
    plain, averaged = tiny_network(), tiny_network()
    without = train(plain, fake_source(6, 6), fake_source(9))
    recorder = Recorder(averaged)
    with_average = train(averaged, fake_source(6, 6), fake_source(9), ema_decay=0.99, observer=recorder)
    assert same_state(copied_state(plain), copied_state(averaged))
    assert [one.train_loss for one in without.records] == [one.train_loss for one in with_average.records]
    assert without.records[-1].valid_loss != with_average.records[-1].valid_loss
    # The evaluated network: the average with the running statistics of the network itself.
    judged = tiny_network()
    judged.load_state_dict({**recorder.weights[-1], **recorder.states[-1].average.tensors})
    loss = predict_probabilities(judged, fake_source(9).epoch(2), NORMALIZATION, CPU).loss
    assert with_average.records[-1].valid_loss == loss


def test_run_without_an_average_cannot_resume_with_one() -> None:
    recorder = Recorder(model := tiny_network())
    train(model, fake_source(4), epochs=1, observer=recorder)
    with pytest.raises(RunError, match="no average of the weights"):
        train(model, fake_source(4), epochs=2, ema_decay=0.9, start=recorder.states[-1])


def test_average_is_evaluated_and_saved_with_statistics_estimated_for_it() -> None:
    """The running statistics belong to other weights; they and the training do not change."""
    without, model = tiny_network(), tiny_network()
    train(without, fake_source(6, 6), fake_source(9), ema_decay=0.9)
    clean, recorder = fake_source(8, 8), Recorder(model, ((2, 1),))
    history = train(model, fake_source(6, 6), fake_source(9), ema_decay=0.9, observer=recorder, clean_source=clean)
    assert clean.asked == [(0, 0), (0, 0)]
    assert same_state(copied_state(model), copied_state(without))

    judged = tiny_network()
    judged.load_state_dict(evaluation_weights(recorder.weights[-1], recorder.states[-1]))
    assert predict_probabilities(judged, fake_source(9).epoch(2), NORMALIZATION, CPU).loss == (
        history.records[-1].valid_loss
    )
    expected = reestimate_batchnorm(judged, fake_source(8, 8).epoch(0), NORMALIZATION, CPU)
    for name, value in expected.buffers.items():
        assert torch.equal(judged.get_buffer(name), value)
        assert not torch.equal(model.get_buffer(name), value)
    # After one more step they would be those of other weights.
    ((inside, _),) = recorder.saved
    assert inside.average.tensors.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("stop", ["inside", "at the end"])
def test_run_with_estimated_statistics_resumes_bit_by_bit(stop: str) -> None:
    run = {"epochs": 3, "ema_decay": 0.8}
    whole = tiny_network()
    recorder = Recorder(whole, ((2, 1),))
    history = train(whole, fake_source(5, 6), fake_source(6), observer=recorder, clean_source=fake_source(8), **run)
    start, weights = recorder.saved[0] if stop == "inside" else (recorder.states[0], recorder.weights[0])
    resumed = tiny_network(seed=9)
    resumed.load_state_dict(weights)
    again = Recorder(resumed)
    other = train(
        resumed, fake_source(5, 6), fake_source(6), observer=again, start=start, clean_source=fake_source(8), **run
    )
    assert same_state(copied_state(resumed), copied_state(whole))
    assert without_times(other) == without_times(history)
    assert same_state(dict(again.states[-1].average.tensors), dict(recorder.states[-1].average.tensors))
