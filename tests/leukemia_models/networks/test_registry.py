from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_models.networks.registry import build_model, count_parameters, model_names


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.18),
        ("resnet18-narrow", 0.70),
        ("resnet34", 21.29),
        ("resnet50", 23.51),
        ("resnet101", 42.50),
        ("resnet152", 58.15),
        ("resnet18-no-maxpool", 11.18),
        ("resnet50-no-maxpool", 23.51),
        ("resnet152-no-maxpool", 58.15),
        ("resnet50-report-b", 23.51),
        ("resnet152-report-b", 58.15),
        ("resnet18-concat", 23.71),
    ],
)
def test_parameter_counts_at_two_classes(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(count_parameters(build_model(name, 2)) / 1e6, 2) == millions


def convolution(inputs: int, outputs: int, side: int) -> int:
    """A convolution without bias, and the scale and shift of its BatchNorm."""
    return side * side * inputs * outputs + 2 * outputs


def basic_block(inputs: int, width: int) -> int:
    shortcut = convolution(inputs, width, 1) if inputs != width else 0
    return convolution(inputs, width, 3) + convolution(width, width, 3) + shortcut


def bottleneck(inputs: int, width: int) -> int:
    shortcut = convolution(inputs, 4 * width, 1) if inputs != 4 * width else 0
    branch = convolution(inputs, width, 1) + convolution(width, width, 3) + convolution(width, 4 * width, 1)
    return branch + shortcut


@pytest.mark.parametrize(
    ("name", "block", "expansion", "blocks"),
    [
        ("resnet18", basic_block, 1, (2, 2, 2, 2)),
        ("resnet18-narrow", basic_block, 1, (2, 2, 2, 2)),
        ("resnet34", basic_block, 1, (3, 4, 6, 3)),
        ("resnet50", bottleneck, 4, (3, 4, 6, 3)),
        ("resnet50-report-b", bottleneck, 4, (3, 4, 6, 3)),
        ("resnet101", bottleneck, 4, (3, 4, 23, 3)),
        ("resnet152", bottleneck, 4, (3, 8, 36, 3)),
    ],
)
def test_parameter_counts_by_hand(
    name: str, block: Callable[[int, int], int], expansion: int, blocks: tuple[int, ...]
) -> None:
    first = 16 if name.endswith("narrow") else 64
    expected, channels = convolution(3, first, 7), first
    for width, count in zip((first, 2 * first, 4 * first, 8 * first), blocks, strict=True):
        expected += block(channels, width) + (count - 1) * block(expansion * width, width)
        channels = expansion * width
    with torch.device("meta"):
        assert count_parameters(build_model(name, 3)) == expected + 3 * channels + 3


def test_frozen_parameters_are_not_counted() -> None:
    model = build_model("resnet18", 2)
    whole = count_parameters(model)
    model.get_parameter("fc.bias").requires_grad_(False)
    assert count_parameters(model) == whole - 2


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        build_model("resnet20", 2)
    assert "resnet20" in str(caught.value)
    assert all(name in str(caught.value) for name in model_names())


def test_one_class_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2 classes"):
        build_model("resnet18", 1)


def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (build_model("resnet18", 2, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    build_model("resnet18", 2, seed=9)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_outline_has_the_shapes_of_the_network_and_loads_no_sympy() -> None:
    code = """
import sys
from leukemia_models.networks.registry import build_model, build_outline
outline, model = build_outline("resnet18-narrow", 3), build_model("resnet18-narrow", 3)
assert {value.device.type for value in outline.state_dict().values()} == {"meta"}
assert [(name, value.shape) for name, value in outline.state_dict().items()] == [
    (name, value.shape) for name, value in model.state_dict().items()
]
assert "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
