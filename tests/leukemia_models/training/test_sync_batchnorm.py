"""One rank alone; two ranks are in test_two_ranks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.networks.registry import build_model
from leukemia_models.training.sync_batchnorm import SynchronizedBatchNorm, synchronized_batchnorm

from ..fakes import copied_state, same_state, tiny_network

TWO = Ranks(0, 2)


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
