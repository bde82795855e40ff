from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from leukemia_data.errors import RunError
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.networks.registry import build_model

from ..fakes import CPU, NORMALIZATION, FakeBatch, copied_state, fake_batch, same_state, tiny_network


def test_equals_a_plain_forward_pass_in_eval_mode() -> None:
    model = build_model("resnet18", 2)
    batches = [fake_batch(5, 1), fake_batch(1, 2)]
    found = predict_probabilities(model, batches, NORMALIZATION, CPU, channels_last=False)
    model.eval()
    images = torch.cat([batch.images_BHWC for batch in batches]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = torch.softmax(model((images - 0.4) / 0.3), dim=1).numpy()
    np.testing.assert_allclose(found.probabilities_NK, expected, atol=1e-5)
    np.testing.assert_allclose(found.probabilities_NK.sum(axis=1), 1, atol=1e-12)
    assert found.indices_N.tolist() == [1000, 1001, 1002, 1003, 1004, 2000]
    assert found.labels_N.tolist() == torch.cat([batch.labels_B for batch in batches]).tolist()
    assert found.loss == pytest.approx(log_loss(found.labels_N, found.probabilities_NK))


def test_batch_size_does_not_change_a_prediction() -> None:
    model = tiny_network()
    whole = fake_batch(6, 3)
    parts = [FakeBatch(*(tensor[i : i + 1] for tensor in vars(whole).values())) for i in range(6)]
    run_on_all = predict_probabilities(model, [whole], NORMALIZATION, CPU)
    apart = predict_probabilities(model, parts, NORMALIZATION, CPU)
    np.testing.assert_allclose(run_on_all.probabilities_NK, apart.probabilities_NK, atol=1e-6)


def test_no_parameter_no_buffer_and_no_mode_changes() -> None:
    model = tiny_network()
    model.train()
    model[1].eval()  # a frozen BatchNorm must come back frozen
    before, modes = copied_state(model), [module.training for module in model.modules()]
    predict_probabilities(model, [fake_batch(4, 1)], NORMALIZATION, CPU)
    assert same_state(copied_state(model), before)
    assert [module.training for module in model.modules()] == modes


def test_mode_comes_back_after_an_error() -> None:
    class Failing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            raise KeyError

    model = Failing()
    with pytest.raises(KeyError):
        predict_probabilities(model, [fake_batch(2, 1)], NORMALIZATION, CPU)
    assert model.training


def test_reused_buffers_are_copied() -> None:
    """A stream may overwrite the last batch with the next one."""
    source = fake_batch(4, 1)
    reused = FakeBatch(*(tensor.clone() for tensor in vars(source).values()))

    def stream() -> object:
        yield reused
        reused.labels_B.fill_(1)
        reused.indices_B.fill_(7)
        yield reused

    found = predict_probabilities(tiny_network(), stream(), NORMALIZATION, CPU)
    assert found.indices_N.tolist() == [*source.indices_B.tolist(), 7, 7, 7, 7]
    assert found.labels_N.tolist() == [*source.labels_B.tolist(), 1, 1, 1, 1]


def test_masked_rows_are_left_out() -> None:
    model = tiny_network()
    batches = [fake_batch(4, 1), fake_batch(3, 2), fake_batch(2, 3)]
    whole = predict_probabilities(model, batches, NORMALIZATION, CPU)
    batches[0].mask_B[1] = False
    batches[2].mask_B[:] = False
    found = predict_probabilities(model, batches, NORMALIZATION, CPU)
    kept = [0, 2, 3, 4, 5, 6]
    assert found.indices_N.tolist() == whole.indices_N[kept].tolist()
    assert found.labels_N.tolist() == whole.labels_N[kept].tolist()
    np.testing.assert_array_equal(found.probabilities_NK, whole.probabilities_NK[kept])
    for batch in batches:
        batch.mask_B[:] = False
    with pytest.raises(RunError, match="no images"):
        predict_probabilities(model, batches, NORMALIZATION, CPU)


def test_certain_and_wrong_has_a_finite_loss() -> None:
    model = tiny_network()
    nn.init.zeros_(model[-1].weight)
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([2000.0, -2000.0]))
    batch = fake_batch(3, 1)
    batch.labels_B.fill_(1)
    assert predict_probabilities(model, [batch], NORMALIZATION, CPU).loss == pytest.approx(4000)


def test_nothing_to_predict_is_an_error() -> None:
    with pytest.raises(RunError, match="no images"):
        predict_probabilities(tiny_network(), [], NORMALIZATION, CPU)
