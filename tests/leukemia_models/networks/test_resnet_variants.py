from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from leukemia_models.networks.registry import build_model, count_parameters
from leukemia_models.networks.resnet import Bottleneck, ConcatBlock, LinearBottleneck

from .test_resnet import give_batchnorms_a_past

SHAPES = [(8, 8, 1), (8, 8, 2), (8, 16, 1), (8, 16, 2), (32, 8, 1), (32, 8, 2)]


def with_a_past(block: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """The block in eval mode, and its tensors by name."""
    give_batchnorms_a_past(block, torch.Generator().manual_seed(1))
    return block.eval(), block.state_dict()


def convolved(features: Tensor, weights: dict[str, Tensor], name: str, *, stride: int = 1, padding: int = 0) -> Tensor:
    return functional.conv2d(
        features, weights[f"{name}.weight"], weights.get(f"{name}.bias"), stride=stride, padding=padding
    )


def normed(features: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    mean, var, scale, shift = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(features, mean, var, scale, shift)


def shortcut_of(features: Tensor, weights: dict[str, Tensor], stride: int) -> Tensor:
    if "downsample.0.weight" not in weights:
        return features
    return normed(convolved(features, weights, "downsample.0", stride=stride), weights, "downsample.1")


@pytest.mark.parametrize(("in_channels", "width", "stride"), SHAPES)
def test_linear_bottleneck_by_plain_functions(in_channels: int, width: int, stride: int) -> None:
    block, weights = with_a_past(LinearBottleneck(in_channels, width, stride))
    features = torch.randn(2, in_channels, 6, 6, generator=torch.Generator().manual_seed(2))
    branch = normed(convolved(features, weights, "conv1"), weights, "bn1")
    branch = normed(convolved(branch, weights, "conv2", stride=stride, padding=1), weights, "bn2")
    branch = normed(convolved(branch, weights, "conv3"), weights, "bn3").clamp(min=0)
    expected = (branch + shortcut_of(features, weights, stride)).clamp(min=0)
    before = features.clone()
    with torch.inference_mode():
        torch.testing.assert_close(block(features), expected)
    assert torch.equal(features, before)


@pytest.mark.parametrize(("in_channels", "width", "stride"), SHAPES)
def test_concat_block_by_plain_functions(in_channels: int, width: int, stride: int) -> None:
    block, weights = with_a_past(ConcatBlock(in_channels, width, stride))
    features = torch.randn(2, in_channels, 6, 6, generator=torch.Generator().manual_seed(3))
    branch = normed(convolved(features, weights, "conv1", stride=stride, padding=1), weights, "bn1").clamp(min=0)
    branch = normed(convolved(branch, weights, "conv2", padding=1), weights, "bn2")
    both = torch.cat([branch, shortcut_of(features, weights, stride)], dim=1)
    expected = convolved(both, weights, "merge", padding=1).clamp(min=0)
    before = features.clone()
    with torch.inference_mode():
        torch.testing.assert_close(block(features), expected)
    assert torch.equal(features, before)


def test_branch_of_the_linear_bottleneck_is_affine_up_to_its_last_relu() -> None:
    """Without the inner ReLUs the branch is linear: sums of inputs give sums of outputs."""

    def before_relu(block: nn.Module, features: Tensor) -> Tensor:
        found: list[Tensor] = []
        handle = block.bn3.register_forward_hook(lambda module, inputs, output: found.append(output.clone()))
        block(features)
        handle.remove()
        return found[0]

    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, 1, 32, 6, 6, generator=generator)
    zero = torch.zeros_like(first)
    for kind, is_affine in ((LinearBottleneck, True), (Bottleneck, False)):
        block, _ = with_a_past(kind(32, 8, 1))
        with torch.inference_mode():
            of_sum, *parts = (before_relu(block, features) for features in (first + second, first, second, zero))
        assert torch.allclose(of_sum, parts[0] + parts[1] - parts[2], atol=1e-5) == is_affine


@pytest.mark.parametrize("name", ["resnet50", "resnet152"])
def test_report_b_has_the_parameters_of_the_standard_network(name: str) -> None:
    with torch.device("meta"):
        ours, plain = (build_model(each, 2).state_dict() for each in (f"{name}-report-b", name))
    assert list(ours) == list(plain)
    assert [value.shape for value in ours.values()] == [value.shape for value in plain.values()]


def test_concat_keeps_the_names_of_resnet18_and_adds_one_convolution_a_block() -> None:
    with torch.device("meta"):
        ours, plain = (build_model(name, 2) for name in ("resnet18-concat", "resnet18"))
    added = [name for name in ours.state_dict() if name not in plain.state_dict()]
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert added == [f"{block}.merge.{part}" for block in blocks for part in ("weight", "bias")]
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert all(shapes[name] == value.shape for name, value in plain.state_dict().items())
    # By hand: two blocks a stage, each with a 3x3 convolution from 2w to w channels and its bias.
    extra = sum(2 * (9 * 2 * width * width + width) for width in (64, 128, 256, 512))
    assert count_parameters(ours) == count_parameters(plain) + extra
    assert count_parameters(ours) / count_parameters(plain) == pytest.approx(2, rel=0.1)


def test_concat_learns() -> None:
    """The merging convolution has no BatchNorm: check the scale of the initial outputs."""
    model = build_model("resnet18-concat", 2, seed=1)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    logits = model(images)
    assert logits.abs().max() < 20
    functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in model.parameters())
