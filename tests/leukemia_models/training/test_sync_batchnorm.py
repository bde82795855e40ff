"""One rank alone; two ranks are in test_two_ranks."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.networks.registry import build_model
from leukemia_models.training.sync_batchnorm import MicroBatchStatistics, SynchronizedBatchNorm, synchronized_batchnorm

from ..fakes import copied_state, same_state, tiny_network

TWO = Ranks(0, 2)


@dataclass(frozen=True)
class Mirrored(Ranks):
    """One of two ranks, the other of which sends a given number of rows with moments 0; keeps what this one sends."""

    world_size: int = 2
    num_others: int = 6
    sent: list[Tensor] = field(default_factory=list)

    def gather(self, values: Tensor) -> Tensor:
        self.sent.append(values)
        other = torch.zeros_like(values)
        other[0] = self.num_others
        return torch.stack([values, other])


@pytest.mark.parametrize("num_rows", [4, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_ranks_send_numbers_of_one_type_whatever_they_compute_in(num_rows: int, dtype: torch.dtype) -> None:
    """A rank without rows too: messages of several types would be read as other numbers."""
    ranks = Mirrored()
    network = nn.Sequential(nn.Conv2d(3, 5, 1), SynchronizedBatchNorm(nn.BatchNorm2d(5), ranks))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        output = network(torch.randn(num_rows, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    output.float().sum().backward()
    assert output.shape == (num_rows, 5, 6, 6)
    assert output.dtype == dtype
    # Forward: a number of values, and two moments; backward: two sums.
    assert [message.dtype for message in ranks.sent] == [torch.float64] * 2
    assert [message.shape for message in ranks.sent] == [(11,), (10,)]


def test_under_16_bits_the_moments_are_those_of_32() -> None:
    generator = torch.Generator().manual_seed(0)
    features = (100 + torch.randn(64, 5, 6, 6, generator=generator)).bfloat16()
    layer = nn.BatchNorm2d(5)
    SynchronizedBatchNorm(layer, SINGLE)(features)
    expected = nn.BatchNorm2d(5)
    expected(features.float())
    torch.testing.assert_close(layer.running_mean, expected.running_mean)
    torch.testing.assert_close(layer.running_var, expected.running_var)


@dataclass(frozen=True)
class Averaging(Ranks):
    """One of two ranks, the other of which has statistics of 1 everywhere; counts the exchanges."""

    world_size: int = 2
    asked: list[int] = field(default_factory=list)

    def gather(self, values: Tensor) -> Tensor:
        self.asked.append(values.numel())
        return torch.stack([values, torch.ones_like(values)])


def test_statistics_of_a_rank_are_averaged_when_they_are_needed_and_once() -> None:
    ranks, model = Averaging(), tiny_network().train()
    statistics = MicroBatchStatistics(model, ranks, 1, synchronized=False)
    statistics.average()
    assert not ranks.asked  # equal before the first step
    own = copy.deepcopy(model)
    for seed in (0, 1):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        own(images)
        with statistics.of_step(), statistics.of_micro_batch(4):
            model(images)
    assert not ranks.asked
    for _ in range(2):
        statistics.average()
    assert ranks.asked == [16]
    torch.testing.assert_close(model[1].running_mean, (own[1].running_mean + 1) / 2)
    torch.testing.assert_close(model[1].running_var, (own[1].running_var + 1) / 2)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_rank_without_rows_leaves_the_mean_of_the_statistics_as_if_all_knew_it(momentum: float | None) -> None:
    """Two ranks with different statistics; in the last step one has no rows, and neither asks the other."""
    models = [tiny_network().train() for _ in range(2)]
    for model in models:
        model[1].momentum = momentum
    ranks = [Averaging(0), Averaging(1)]
    both = [MicroBatchStatistics(model, own, 1, synchronized=False) for model, own in zip(models, ranks, strict=True)]
    images = torch.randn(4, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for number, (model, statistics) in enumerate(zip(models, both, strict=True)):
        with statistics.of_step(), statistics.of_micro_batch(4):
            model(images[number])
    layers = [model[1] for model in models]
    before = [torch.stack([running(layer)[part] for layer in layers]).mean(dim=0) for part in range(2)]
    alone = copy.deepcopy(models[0])
    for buffer, value in zip(running(alone[1]), before, strict=True):
        buffer.copy_(value)
    alone(images[2])
    expected = [(now + was) / 2 for now, was in zip(running(alone[1]), before, strict=True)]

    for model, statistics, rows in zip(models, both, (images[2], images[2][:0]), strict=True):
        with statistics.of_step(0.5), statistics.of_micro_batch(len(rows)):
            model(rows)
    for part in range(2):
        found = torch.stack([running(layer)[part] for layer in layers]).mean(dim=0)
        torch.testing.assert_close(found, expected[part])
    assert [layer.num_batches_tracked.item() for layer in layers] == [2, 2]
    assert not any(own.asked for own in ranks)


def running(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.running_mean, layer.running_var


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_alone_it_is_as_exact_as_torch(memory_format: torch.memory_format, mean: float) -> None:
    """Measured against float64, where the mean is large against the standard deviation too."""
    features, gradients = torch.randn(2, 16, 8, 20, 20, generator=torch.Generator().manual_seed(0))
    features += mean
    found = {}
    for name, dtype in (("torch", torch.float32), ("exact", torch.float64), ("sync", torch.float32)):
        layer = nn.BatchNorm2d(8, dtype=dtype)
        leaf = features.to(dtype).to(memory_format=memory_format).detach().requires_grad_()
        output = (SynchronizedBatchNorm(layer, SINGLE) if name == "sync" else layer)(leaf)
        output.backward(gradients.to(dtype))
        found[name] = [output, leaf.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var]
    for torchs, exact, ours in zip(*found.values(), strict=True):
        worst = (torchs - exact).abs().max()
        assert (ours - exact).abs().max() <= 2 * worst + 1e-6 * exact.abs().max()


def test_gradient_is_that_of_the_function() -> None:
    layer = SynchronizedBatchNorm(nn.BatchNorm1d(3, eps=0.1), SINGLE)
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gradients = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    layer(features).backward(gradients)
    step = 1e-2
    for row, column in ((0, 0), (3, 2)):
        moved = torch.zeros(4, 3)
        moved[row, column] = step
        with torch.no_grad():
            slope = ((layer(features + moved) - layer(features - moved)) * gradients).sum() / (2 * step)
        assert features.grad[row, column].item() == pytest.approx(slope.item(), abs=2e-3)


def test_one_value_per_channel_is_an_error_as_in_torch() -> None:
    with pytest.raises(ValueError, match="more than one value per channel"):
        SynchronizedBatchNorm(nn.BatchNorm2d(3), SINGLE)(torch.zeros(1, 3, 1, 1))


def test_network_has_its_own_layers_names_and_tensors_before_and_after() -> None:
    model = build_model("resnet18", 2)
    layers = dict(model.named_modules())
    names = list(model.state_dict())
    parameters = list(model.parameters())
    with synchronized_batchnorm(model, TWO):
        swapped = [module for module in model.modules() if isinstance(module, SynchronizedBatchNorm)]
        assert len(swapped) == sum(isinstance(layer, nn.BatchNorm2d) for layer in layers.values()) == 20
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        assert list(model.state_dict()) == names
        assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
        model.bn1.running_mean += 1
        model.eval()
    assert dict(model.named_modules()) == layers
    assert torch.equal(model.bn1.running_mean, torch.ones(64))
    assert not model.bn1.training


def test_one_rank_keeps_its_layers() -> None:
    model = tiny_network()
    layers = list(model.modules())
    with synchronized_batchnorm(model, SINGLE):
        assert list(model.modules()) == layers


def test_eval_mode_needs_no_other_rank_and_changes_nothing() -> None:
    model = tiny_network().eval()
    model[1].running_mean += 0.3
    before, images = copied_state(model), torch.randn(2, 3, 8, 8)
    expected = model(images)
    with synchronized_batchnorm(model, TWO):
        assert torch.equal(model(images), expected)
    assert same_state(copied_state(model), before)
