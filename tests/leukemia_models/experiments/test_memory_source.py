from __future__ import annotations

import numpy as np
import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_models.experiments.batchnorm_experiment import MemorySource

IMAGES = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
LABELS = np.arange(7, dtype=np.int64) % 2


def test_every_image_comes_once_an_epoch_with_its_label_and_number() -> None:
    source = MemorySource(IMAGES, LABELS, batch_size=3, seed=5)
    batches = list(source.epoch(1))
    assert [len(batch.labels_B) for batch in batches] == [3, 3, 1]
    assert len(source) == 3
    numbers = torch.cat([batch.indices_B for batch in batches])
    assert sorted(numbers.tolist()) == list(range(7))
    assert torch.equal(torch.cat([batch.images_BHWC for batch in batches])[:, 0, 0, 0].long(), numbers)
    assert torch.equal(torch.cat([batch.labels_B for batch in batches]), numbers % 2)
    assert all(batch.mask_B.all() for batch in batches)


def test_order_depends_on_the_epoch_and_continues_inside_one() -> None:
    source = MemorySource(IMAGES, LABELS, batch_size=2, seed=5, drop_last=True)
    assert len(source) == 3

    def order(epoch: int, first_step: int = 0) -> list[int]:
        return torch.cat([batch.indices_B for batch in source.epoch(epoch, first_step)]).tolist()

    assert order(1) == order(1) != order(2)
    assert order(2, 1) == order(2)[2:]
    kept = MemorySource(IMAGES, LABELS, batch_size=4)
    assert torch.cat([batch.indices_B for batch in kept.epoch(1)]).tolist() == list(range(7))


def test_batches_are_copies() -> None:
    images = IMAGES.copy()
    for batch in MemorySource(images, LABELS, batch_size=7).epoch(1):
        batch.images_BHWC.zero_()
    assert np.array_equal(images, IMAGES)


def test_images_and_labels_must_match() -> None:
    with pytest.raises(UsageError, match="7 images but 6 labels"):
        MemorySource(IMAGES, LABELS[:6], batch_size=2)
