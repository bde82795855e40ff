"""The processes of a training, on devices that are not here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from leukemia_models.runs.run_config import MachineOptions, training_process


def test_a_chosen_cuda_device_is_the_current_one_until_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    current, chosen = [torch.device("cuda", 0)], torch.device("cuda", 1)

    @contextmanager
    def device(entered: torch.device) -> Iterator[None]:
        current.append(entered)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **of: True)
    with training_process(machine=MachineOptions(device="cuda:1")) as process:
        assert process.device == current[-1] == chosen
    assert current == [torch.device("cuda", 0)]
