from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: for such small networks a second one only costs time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads(one_thread: None) -> Iterator[None]:
    """For tests whose point is that threads do not change a result."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
