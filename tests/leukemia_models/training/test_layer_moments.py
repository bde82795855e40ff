from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leukemia_models.devices.distributed import SINGLE
from leukemia_models.training.batchnorm_statistics import Moments, MomentsMeter, measuring_inputs


def moments_of(values_NC: Tensor) -> Moments:
    return Moments(len(values_NC), values_NC.mean(dim=0), values_NC.var(dim=0, correction=0))


def test_merged_moments_are_those_of_all_values() -> None:
    values_NC = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 100
    merged = moments_of(values_NC[:7]).merged(moments_of(values_NC[7:]))
    assert merged.num_values == 50
    np.testing.assert_allclose(merged.mean_C, values_NC.numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.var_C, values_NC.numpy().var(axis=0), rtol=1e-10)


def test_merging_nothing_changes_nothing() -> None:
    nothing, some = Moments(0, torch.zeros(2), torch.zeros(2)), Moments(3, torch.ones(2), torch.full((2,), 2.0))
    for merged in (nothing.merged(some), some.merged(nothing)):
        assert merged.num_values == 3
        assert torch.equal(merged.mean_C, some.mean_C)
        assert torch.equal(merged.var_C, some.var_C)
    assert nothing.merged(nothing).num_values == 0


def test_inputs_of_uneven_passes_are_pooled_exactly_where_the_mean_is_large() -> None:
    layer = nn.Identity()
    generator = torch.Generator().manual_seed(1)
    passes = [
        200 + shift + torch.randn(size, 3, 4, 5, generator=generator) for size, shift in ((6, 0), (1, 3), (3, -2))
    ]
    with measuring_inputs({"a": layer, "unused": nn.Identity()}, {"a": 3, "unused": 7}) as meter:
        for features in passes:
            layer(features)
            meter.collect()
        layer(features)  # not collected, not counted
    layer(features)
    found = meter.of_all(SINGLE)
    values = torch.cat(passes).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    assert list(found) == ["a"]
    assert found["a"].num_values == len(values)
    np.testing.assert_allclose(found["a"].mean_C, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["a"].var_C, values.var(axis=0), rtol=1e-4)


def test_layer_that_runs_twice_in_a_pass_counts_twice() -> None:
    meter = MomentsMeter({"a": 1})
    for value in (1.0, 3.0):
        meter.measure("a", torch.full((2, 1), value))
    meter.collect()
    found = meter.of_all(SINGLE)["a"]
    assert (found.num_values, found.mean_C.item(), found.var_C.item()) == (4, 2.0, pytest.approx(1.0))
