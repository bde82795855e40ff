from __future__ import annotations

import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_data.streams.residency import choose_residency, free_bytes, max_bytes

GB = 10**9


@pytest.mark.parametrize(
    ("wanted", "split_bytes", "device_free", "kind"),
    [
        ("auto", 2 * GB, None, "ram"),
        ("auto", 5 * GB // 2, None, "ram"),
        ("auto", 5 * GB // 2 + 1, None, "mapped"),
        ("auto", 4 * GB, 10 * GB, "device"),
        ("auto", 4 * GB + 1, 10 * GB, "mapped"),
        ("auto", 2 * GB, 4 * GB, "ram"),
        ("mapped", 1, 10 * GB, "mapped"),
        ("device", 9 * GB, 10 * GB, "device"),
        ("ram", 8 * GB, None, "ram"),
    ],
)
def test_choice_follows_free_memory(wanted, split_bytes, device_free, kind):
    chosen = choose_residency(wanted, split_bytes, device_free_bytes=device_free, ram_free_bytes=10 * GB)
    assert chosen.kind == kind
    assert "GB" in chosen.reason or "MB" in chosen.reason


@pytest.mark.parametrize(
    ("wanted", "split_bytes", "device_free", "words"),
    [
        ("disk", 1, None, "unknown residency 'disk'"),
        ("device", 1, None, "needs a CUDA or MPS device"),
        ("device", 11 * GB, 10 * GB, "11.00 GB, more than 10.00 GB"),
        ("ram", 9 * GB, None, "9.00 GB, more than 8.00 GB"),
    ],
)
def test_what_does_not_fit_is_refused(wanted, split_bytes, device_free, words):
    with pytest.raises(UsageError, match=words):
        choose_residency(wanted, split_bytes, device_free_bytes=device_free, ram_free_bytes=10 * GB)


@pytest.mark.parametrize(("split_bytes", "kind"), [(2**31 - 1, "device"), (2**31, "ram")])
def test_device_that_indexes_with_32_bits_gets_no_larger_split(split_bytes, kind):
    limits = {"device_free_bytes": 60 * GB, "device_max_bytes": 2**31 - 1, "ram_free_bytes": 60 * GB}
    assert choose_residency("auto", split_bytes, **limits).kind == kind
    if kind != "device":
        with pytest.raises(UsageError, match=r"2\.15 GB, more than 2\.15 GB that one tensor"):
            choose_residency("device", split_bytes, **limits)


def test_another_split_shares_the_memory_but_not_the_tensor():
    limits = {"device_free_bytes": 10 * GB, "ram_free_bytes": 10 * GB}
    assert choose_residency("auto", 3 * GB, other_bytes=GB, **limits).kind == "device"
    assert choose_residency("auto", 3 * GB, other_bytes=GB + 1, **limits).kind == "mapped"
    with pytest.raises(UsageError, match=r"11\.00 GB, more than 10\.00 GB of free memory on the device"):
        choose_residency("device", 6 * GB, other_bytes=5 * GB, **limits)
    # Each has a tensor of its own.
    assert choose_residency("device", 2 * GB, other_bytes=2 * GB, device_max_bytes=2 * GB, **limits).kind == "device"


def test_only_mps_limits_what_one_tensor_may_hold():
    assert max_bytes(torch.device("mps")) == 2**31 - 1
    assert max_bytes(torch.device("cuda")) is max_bytes(torch.device("cpu")) is None


def test_processes_share_the_memory():
    for num_processes, kind in ((1, "ram"), (2, "mapped")):
        chosen = choose_residency(
            "auto", 2 * GB, device_free_bytes=None, ram_free_bytes=10 * GB, num_processes=num_processes
        )
        assert chosen.kind == kind


def test_the_cpu_has_no_memory_of_its_own():
    assert free_bytes(torch.device("cpu")) is None


def test_what_torch_keeps_for_itself_is_free(monkeypatch):
    """After a fold the allocator holds its memory: without it the next fold would find the device full."""
    device = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda asked: {device: (2 * GB, 16 * GB)}[asked])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda asked: {device: 11 * GB}[asked])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda asked: {device: GB}[asked])
    assert free_bytes(device) == 12 * GB
