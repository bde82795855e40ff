from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from leukemia_data.errors import UsageError
from leukemia_models.networks.registry import NETWORKS, build_model, model_cost, model_names
from leukemia_models.networks.registry import measure_cost as measure_cost_anew
from leukemia_models.networks.resnet import count_multiply_adds

# Of a network of 152 layers it takes seconds.
measure_cost = cache(measure_cost_anew)


PUBLISHED = {
    "resnet18": 1.81,
    "resnet50": 4.09,
    "resnet152": 11.51,
    "resnet18-no-maxpool": 6.90,
    "resnet50-no-maxpool": 15.99,
    "resnet152-no-maxpool": 45.69,
}


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_published_multiply_adds_at_224(name: str, billions: float) -> None:
    assert round(measure_cost(name, 224).multiply_adds / 1e9, 2) == billions


def test_layers_by_hand() -> None:
    meta = torch.device("meta")
    convolution = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False, device=meta)
    # Each of 112 x 112 places and 64 channels sums 7 x 7 x 3 products.
    assert count_multiply_adds(convolution, torch.empty(1, 3, 224, 224, device=meta)) == 112 * 112 * 64 * 7 * 7 * 3
    network = nn.Sequential(convolution, nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(64, 5)).to(meta)
    images = torch.empty(2, 3, 224, 224, device=meta)
    assert count_multiply_adds(network, images) == 2 * (112 * 112 * 64 * 7 * 7 * 3 + 64 * 5)


def test_counting_on_the_cpu_gives_the_same_and_changes_nothing() -> None:
    model = build_model("resnet18", 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert count_multiply_adds(model, torch.zeros(1, 3, 64, 64)) == model_cost("resnet18", 64).multiply_adds
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "sizes_px"), [("resnet18", (32, 16, 8, 4)), ("resnet18-no-maxpool", (64, 32, 16, 8))])
def test_stage_sizes_at_128(name: str, sizes_px: tuple[int, ...]) -> None:
    assert measure_cost(name, 128).stage_sizes_px == sizes_px


def test_report_b_costs_what_the_standard_network_costs() -> None:
    assert measure_cost("resnet50-report-b", 64) == measure_cost("resnet50", 64)


def test_concat_costs_one_convolution_of_twice_the_width_a_block_more() -> None:
    extra = sum(2 * side_px**2 * 9 * 2 * width**2 for side_px, width in ((56, 64), (28, 128), (14, 256), (7, 512)))
    assert measure_cost("resnet18-concat", 224).multiply_adds == measure_cost("resnet18", 224).multiply_adds + extra


@pytest.mark.parametrize("at_both_sizes", [False, pytest.param(True, marks=pytest.mark.torture)])
@pytest.mark.parametrize("name", model_names())
def test_recorded_costs_are_those_that_are_counted(name: str, at_both_sizes: bool) -> None:
    """At 224 px where the multiply-adds are published, else at 128 px; all by ``make test-torture``."""
    costs = NETWORKS.get(name).costs
    assert set(costs) == {128, 224}
    sizes_px = (128, 224) if at_both_sizes else (224,) if name in PUBLISHED else (128,)
    for size_px in sizes_px:
        assert costs[size_px] == measure_cost(name, size_px)


def test_other_sizes_and_classes_are_counted() -> None:
    assert model_cost("resnet18", 96) == measure_cost("resnet18", 96)
    assert model_cost("resnet18", 128, 5) == measure_cost("resnet18", 128, 5)


@pytest.mark.parametrize("size_px", [0, 31, 4097])
def test_size_out_of_range(size_px: int) -> None:
    with pytest.raises(UsageError, match=str(size_px)):
        model_cost("resnet18", size_px)
