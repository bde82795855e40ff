"""Random numbers of layers such as dropout: drawn from the place in the training, whatever came before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_layers_apart(device: torch.device) -> Iterator[None]:
    """Let the block seed torch's global random state; afterwards it is as before."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def seed_random_layers(seed: int, epoch: int, step: int, share: int) -> None:
    """Let layers draw from (seed, epoch, step); each share of the batch draws its own, for its own rows."""
    mixed = np.random.SeedSequence((seed % 2**63, epoch, step, share)).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0] >> 1))
