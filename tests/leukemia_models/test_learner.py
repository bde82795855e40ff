from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leukemia_models.learner import Learner
from leukemia_models.run_state import TrainSettings

from .fakes import NORMALIZATION, fake_batch


def test_no_copy_that_may_outlive_its_source_is_begun_off_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """On MPS such a copy reads its source later, when others may own that memory."""
    copy, begun = Tensor.to, []

    def watched(values: Tensor, *args: object, non_blocking: bool = False, **options: object) -> Tensor:
        begun.append(non_blocking)
        return copy(values, *args, non_blocking=non_blocking, **options)

    device = torch.device("meta")
    learner = Learner(nn.Linear(1, 1), TrainSettings(epochs=1), NORMALIZATION, lambda images, *_: images, device)
    monkeypatch.setattr(Tensor, "to", watched)
    share = learner.load(fake_batch(4, 0), 1)
    assert share.images_BCHW.device == share.labels_B.device == device
    assert begun
    assert not any(begun)
