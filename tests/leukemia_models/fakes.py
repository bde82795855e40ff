"""Small stand-ins for the stream: batches of noise whose brightness depends on the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leukemia_models.devices.normalization import Normalization, Normalizer

CPU = torch.device("cpu")
NORMALIZATION = Normalization((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
normalized = Normalizer(NORMALIZATION, CPU)


@dataclass(frozen=True)
class FakeBatch:
    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor
    mask_B: Tensor

    @property
    def occurrences_B(self) -> Tensor:
        return torch.zeros_like(self.indices_B)

    @property
    def host_labels_B(self) -> Tensor:
        return self.labels_B


def fake_batch(num_samples: int, seed: int, size_px: int = 32) -> FakeBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (num_samples,), generator=generator)
    images = torch.randint(0, 128, (num_samples, size_px, size_px, 3), generator=generator)
    images = images + 100 * labels[:, None, None, None]
    first = 1000 * seed
    return FakeBatch(images.to(torch.uint8), labels, torch.arange(first, first + num_samples), every_row(num_samples))


def every_row(num_samples: int) -> Tensor:
    return torch.ones(num_samples, dtype=torch.bool)


def share_of(batch: FakeBatch, rank: int, world_size: int, *, padded: bool) -> FakeBatch:
    """A rank's contiguous rows; filled up with rows that must not count, or of uneven number."""
    size = -(-len(batch.labels_B) // world_size)
    images, labels, indices, mask = (tensor[rank * size : (rank + 1) * size] for tensor in vars(batch).values())
    missing = size - len(labels) if padded else 0
    return FakeBatch(
        torch.cat([images, torch.full((missing, *images.shape[1:]), 255, dtype=torch.uint8)]),
        torch.cat([labels, torch.full((missing,), -1)]),
        torch.cat([indices, torch.full((missing,), -1)]),
        torch.cat([mask, torch.zeros(missing, dtype=torch.bool)]),
    )


class FakeSource:
    """The same batches in an order that depends on the epoch alone."""

    def __init__(self, batches: Sequence[FakeBatch]) -> None:
        self.batches = list(batches)
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[FakeBatch]:
        self.asked.append((epoch, first_step))
        turn = epoch % len(self.batches)
        return iter((self.batches[turn:] + self.batches[:turn])[first_step:])


def fake_source(*sizes: int, size_px: int = 32) -> FakeSource:
    return FakeSource([fake_batch(size, seed, size_px) for seed, size in enumerate(sizes)])


def flipped_by_epoch_and_sample(
    images_BHWC: Tensor, epoch: int, indices_B: Tensor, occurrences_B: Tensor | None = None
) -> Tensor:
    """Prepare a batch so that it matters which epoch and samples it belongs to."""
    flip_B = (indices_B + epoch) % 2 == 0
    return normalized(torch.where(flip_B[:, None, None, None], images_BHWC.flip(2), images_BHWC))


def tiny_network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """A convolution, a BatchNorm and two logits: everything the loop touches, in a few kilobytes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
        )


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
