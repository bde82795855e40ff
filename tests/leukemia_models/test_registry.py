from __future__ import annotations

import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_models.registry import MODEL_NAMES, build_model, count_parameters


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 11.18),
        ("resnet34", 21.29),
        ("resnet50", 23.51),
        ("resnet101", 42.50),
        ("resnet152", 58.15),
    ],
)
def test_parameter_counts_at_two_classes(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(count_parameters(build_model(name, 2)) / 1e6, 2) == millions


def test_frozen_parameters_are_not_counted() -> None:
    model = build_model("resnet18", 2)
    whole = count_parameters(model)
    model.get_parameter("fc.bias").requires_grad_(False)
    assert count_parameters(model) == whole - 2


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        build_model("resnet20", 2)
    assert "resnet20" in str(caught.value)
    assert all(name in str(caught.value) for name in MODEL_NAMES)


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
