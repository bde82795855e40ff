from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leukemia_data.errors import RunError, UsageError
from leukemia_models.devices.distributed import Ranks
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.evaluation.settings import D4, ROTATIONS, Tta
from leukemia_models.experiments.four_ways import predict_in_train_mode
from leukemia_models.networks.registry import build_model
from leukemia_models.training.batchnorm_statistics import applied, reestimate_batchnorm, running_statistics

from ..fakes import (
    CPU,
    NORMALIZATION,
    FakeBatch,
    copied_state,
    fake_batch,
    normalized,
    same_state,
    share_of,
    tiny_network,
)

reestimated = partial(reestimate_batchnorm, normalization=NORMALIZATION, device=CPU)


def two_layers(seed: int = 0) -> nn.Module:
    """A network whose second BatchNorm layer depends on the first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3, stride=2, bias=False),
            nn.BatchNorm2d(4, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.BatchNorm1d(4),
            nn.Linear(4, 2),
        )


def joined(batches: list[FakeBatch]) -> FakeBatch:
    return FakeBatch(
        *(torch.cat(tensors) for tensors in zip(*(vars(batch).values() for batch in batches), strict=True))
    )


# --- what is estimated -------------------------------------------------------------------------------------------


def test_first_layer_gets_mean_and_variance_of_all_values() -> None:
    """Against NumPy in float64, on batches of uneven size whose means differ."""
    model = tiny_network()
    batches = [fake_batch(size, seed) for seed, size in enumerate((8, 3, 5))]
    batches[1].images_BHWC.div_(2, rounding_mode="floor")
    found = reestimated(model, batches)
    values_NC = model[0](normalized(joined(batches).images_BHWC)).detach().permute(0, 2, 3, 1).flatten(0, 2)
    values = values_NC.double().numpy()
    assert list(found.buffers) == ["1.running_mean", "1.running_var"]
    assert found.num_images == 16
    np.testing.assert_allclose(found.buffers["1.running_mean"], values.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.buffers["1.running_var"], values.var(axis=0, ddof=1), rtol=1e-5)


def test_one_batch_gives_what_torch_measures_with_a_momentum_of_one() -> None:
    model, batch = two_layers(), fake_batch(16, 1)
    found = reestimated(model, [batch])
    torchs = copy.deepcopy(model).train()
    for layer in torchs:
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0
    torchs(normalized(batch.images_BHWC))
    expected = {name: value for name, value in torchs.named_buffers() if "running" in name}
    assert found.buffers.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found.buffers[name], value, rtol=1e-4, atol=1e-6)


def test_batch_size_does_not_matter_for_the_first_layer() -> None:
    model, whole = tiny_network(), fake_batch(12, 3)
    parts = [FakeBatch(*(tensor[i : i + 3] for tensor in vars(whole).values())) for i in range(0, 12, 3)]
    one, four = reestimated(model, [whole]).buffers, reestimated(model, parts).buffers
    for name, value in one.items():
        torch.testing.assert_close(four[name], value, rtol=1e-5, atol=1e-6)


def test_eval_mode_with_the_estimates_is_training_mode_on_the_same_images() -> None:
    """Arbitrary buffers are replaced by those of the weights."""
    model, batch = two_layers(), fake_batch(64, 1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.fill_(37.0)
    expected = copy.deepcopy(model).train()(normalized(batch.images_BHWC)).softmax(dim=1).detach().numpy()
    reestimated(model, [batch]).apply(model)
    found = predict_probabilities(model, [batch], NORMALIZATION, CPU)
    # Variances are unbiased in the buffers and biased in training mode: 1 part in 64 in the last layer.
    np.testing.assert_allclose(found.probabilities_NK, expected, atol=0.01)


def test_masked_rows_and_single_images_are_left_out() -> None:
    model = two_layers()
    batches = [fake_batch(6, 1), fake_batch(4, 2), fake_batch(1, 3)]
    kept = FakeBatch(*(tensor[1:] for tensor in vars(batches[0]).values()))
    expected = reestimated(model, [kept])
    batches[0].mask_B[0] = False
    batches[1].mask_B[1:] = False  # one is left of it
    found = reestimated(model, batches)
    assert found.num_images == 5
    for name, value in expected.buffers.items():
        assert torch.equal(found.buffers[name], value)


def test_only_the_needed_batches_are_taken_and_the_stream_is_closed() -> None:
    events: list[str] = []

    def stream() -> Iterator[FakeBatch]:
        try:
            for seed in range(5):
                events.append("batch")
                yield fake_batch(4, seed)
        finally:
            events.append("closed")

    assert reestimated(tiny_network(), stream(), max_batches=2).num_images == 8
    assert events == ["batch", "batch", "closed"]


# --- what it leaves alone ----------------------------------------------------------------------------------------


def frozen_in_part(model: nn.Module) -> nn.Module:
    model.train()
    model[1].eval()
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_network_comes_back_bit_for_bit(fails: bool) -> None:
    model = frozen_in_part(two_layers())
    before, modes = copied_state(model), [module.training for module in model.modules()]
    momenta = [getattr(module, "momentum", None) for module in model.modules()]

    def stream() -> Iterator[FakeBatch]:
        yield fake_batch(4, 1)
        if fails:
            raise KeyError

    if fails:
        with pytest.raises(KeyError):
            reestimated(model, stream())
    else:
        reestimated(model, stream())
    assert same_state(copied_state(model), before)
    assert [module.training for module in model.modules()] == modes
    assert [getattr(module, "momentum", None) for module in model.modules()] == momenta
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_only_batchnorm_is_in_training_mode() -> None:
    """Dropout would hide values from the layers after it."""
    always = tiny_network(dropout=0.0)
    model = nn.Sequential(nn.Dropout(0.9), *always)
    found = reestimated(model, [fake_batch(8, 1)]).buffers
    expected = reestimated(always, [fake_batch(8, 1)]).buffers
    for value, other in zip(found.values(), expected.values(), strict=True):
        assert torch.equal(value, other)


def test_network_can_continue_training_with_the_estimates() -> None:
    model = two_layers()
    reestimated(model, [fake_batch(8, 1)]).apply(model)
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())
    model.train()(normalized(fake_batch(8, 2).images_BHWC)).sum().backward()


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.GroupNorm(2, 4)),
    ],
)
def test_network_without_running_statistics_has_nothing_to_estimate(network: nn.Module) -> None:
    def untouched() -> Iterator[FakeBatch]:
        pytest.fail("no batch is needed")
        yield

    found = reestimated(network, untouched())
    assert found.is_empty
    assert found.num_images == 0
    found.apply(network)


# --- statistics as a value ---------------------------------------------------------------------------------------


def test_estimates_are_used_by_apply_alone() -> None:
    model = two_layers()
    found = reestimated(model, [fake_batch(8, 1)])
    changed = {name: tensor for name, tensor in copied_state(model).items() if name not in found.buffers}
    found.apply(model)
    after = copied_state(model)
    assert all(torch.equal(after[name], value) for name, value in found.buffers.items())
    assert all(torch.equal(after[name], value) for name, value in changed.items())
    assert not np.array_equal(found.buffers["1.running_mean"], np.zeros(6))


def test_estimates_for_a_block_only() -> None:
    model = frozen_in_part(two_layers())
    before, found = copied_state(model), reestimated(model, [fake_batch(8, 1)])
    seen: dict[str, Tensor] = {}

    def fail_inside() -> None:
        with applied(found, model):
            seen.update(copied_state(model))
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert all(torch.equal(seen[name], value) for name, value in found.buffers.items())
    assert same_state(copied_state(model), before)


def test_estimates_of_another_network_are_refused_whole() -> None:
    found = reestimated(two_layers(), [fake_batch(8, 1)])
    other = tiny_network()
    before = copied_state(other)
    with pytest.raises(RunError, match="another network"):
        found.apply(other)
    assert same_state(copied_state(other), before)


def test_running_statistics_are_copies() -> None:
    model = two_layers()
    found = running_statistics(model)
    expected = {name: value.clone() for name, value in found.buffers.items()}
    model(normalized(fake_batch(8, 1).images_BHWC))
    assert same_state(dict(found.buffers), expected)
    assert not same_state(dict(running_statistics(model).buffers), expected)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_wrong_requests() -> None:
    with pytest.raises(UsageError, match="max_batches"):
        reestimated(tiny_network(), [fake_batch(4, 1)], max_batches=0)
    with pytest.raises(RunError, match="two or more training images"):
        reestimated(tiny_network(), [fake_batch(1, 1)])
    broken = tiny_network()
    with torch.no_grad():
        broken[0].weight.fill_(torch.inf)
    with pytest.raises(RunError, match="layer 1 is non-finite"):
        reestimated(broken, [fake_batch(4, 1)])


# --- several ranks -----------------------------------------------------------------------------------------------


class ThreadRanks(Ranks):
    """Ranks as threads of this process: gathered values are available to all after a barrier."""

    board: list[Tensor]
    barrier: threading.Barrier

    def gather(self, values: Tensor) -> Tensor:
        self.board[self.rank] = values.clone()
        self.barrier.wait()
        told = torch.stack(self.board)
        self.barrier.wait()
        return told


def on_two_ranks(action: Callable[[Ranks], object]) -> list[object]:
    board, barrier, found = [torch.empty(0)] * 2, threading.Barrier(2, timeout=30), [None] * 2

    def work(rank: int) -> None:
        ranks = ThreadRanks(rank, 2)
        object.__setattr__(ranks, "board", board)
        object.__setattr__(ranks, "barrier", barrier)
        try:
            found[rank] = action(ranks)
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("padded", [True, False])
def test_two_ranks_estimate_what_one_does(padded: bool) -> None:
    whole = [fake_batch(7, 1), fake_batch(4, 2), fake_batch(1, 3)]
    expected = reestimated(two_layers(), whole)
    models = [two_layers(), two_layers()]

    def estimate(ranks: Ranks) -> object:
        shares = [share_of(batch, ranks.rank, 2, padded=padded) for batch in whole]
        return reestimated(models[ranks.rank], shares, ranks=ranks)

    found = on_two_ranks(estimate)
    for model, estimates in zip(models, found, strict=True):
        assert same_state(copied_state(model), copied_state(two_layers()))
        assert estimates.num_images == expected.num_images == 11
        for name, value in expected.buffers.items():
            torch.testing.assert_close(estimates.buffers[name], value, rtol=1e-5, atol=1e-6)
    assert same_state(*(dict(estimates.buffers) for estimates in found))


def test_error_of_one_rank_reaches_the_other() -> None:
    def estimate(ranks: Ranks) -> object:
        def stream() -> Iterator[FakeBatch]:
            yield fake_batch(4, 1)
            if ranks.rank == 1:
                raise OSError("shard 7 is gone")
            yield fake_batch(4, 2)

        return reestimated(two_layers(), stream(), ranks=ranks)

    first, second = on_two_ranks(estimate)
    assert isinstance(second, OSError)
    assert isinstance(first, RunError)
    assert "shard 7 is gone" in str(first)


# --- judging touches nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tta", [Tta(), Tta(D4), Tta(ROTATIONS, 3)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_evaluation_changes_no_buffer_and_no_mode(tta: Tta, training: bool) -> None:
    model = build_model("resnet18", 2).train(training)
    model.layer1.eval()
    before, modes = copied_state(model), [module.training for module in model.modules()]
    predict_probabilities(model, [fake_batch(3, 1), fake_batch(2, 2)], NORMALIZATION, CPU, tta=tta)
    assert same_state(copied_state(model), before)
    assert [module.training for module in model.modules()] == modes


def test_evaluation_in_training_mode_would_change_the_network() -> None:
    """The second report's validation, after which the running statistics are those of the validation images."""
    model = build_model("resnet18", 2)
    before = copied_state(model)
    predict_in_train_mode(model, [fake_batch(4, seed) for seed in range(3)], NORMALIZATION, CPU)
    after = copied_state(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name, _ in model.named_buffers()}
    assert after["bn1.num_batches_tracked"] == 3 * 8
