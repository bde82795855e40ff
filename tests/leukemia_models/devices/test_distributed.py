"""One process and its rank; two processes are in test_two_ranks."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
import torch.distributed as dist

from leukemia_data.errors import RunError, UsageError
from leukemia_models.devices.distributed import SINGLE, Ranks, joined_ranks, rank_device, ranks_of

from ..fakes import CPU


def test_one_process_needs_no_others() -> None:
    values = torch.tensor([[1, 2], [3, 4]])
    assert SINGLE.gather(values).tolist() == [values.tolist()]
    assert SINGLE.sum(values).tolist() == values.tolist()
    assert SINGLE.all_gather_numbers(1.5, True).tolist() == [[1.5, 1.0]]
    assert SINGLE.broadcast_text("grün") == "grün"
    assert SINGLE.broadcast_text("") == ""
    assert SINGLE.broadcast_bytes(lambda: b"\0\xff") == b"\0\xff"
    assert SINGLE.broadcast_flag(True)
    assert SINGLE.run_on_all(lambda: 7) == 7
    with pytest.raises(KeyError):
        SINGLE.run_on_all(lambda: {}["x"])
    assert not torch.distributed.is_initialized()


def test_who_a_process_is_stands_in_the_environment() -> None:
    assert ranks_of({}) == SINGLE
    assert ranks_of({"RANK": "3", "WORLD_SIZE": "4"}) == Ranks(3, 4)
    here = ranks_of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"})
    assert (here.processes_here, Ranks(3, 4).processes_here) == (2, 4)
    assert [Ranks(0, 2).is_first, Ranks(1, 2).is_first] == [True, False]
    with pytest.raises(UsageError, match=r"WORLD_SIZE must be a number, got ''.*torchrun"):
        ranks_of({"RANK": "0"})
    with pytest.raises(UsageError, match="rank 4 of 4"):
        ranks_of({"RANK": "4", "WORLD_SIZE": "4"})
    with joined_ranks({"RANK": "0", "WORLD_SIZE": "1"}, CPU) as ranks:
        assert ranks == SINGLE
        assert not torch.distributed.is_initialized()


def test_each_process_on_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert rank_device(torch.device("cuda"), environment) == torch.device("cuda", 1)
    assert rank_device(torch.device("cuda"), {}) == torch.device("cuda")
    assert rank_device(CPU, environment) == CPU
    with pytest.raises(UsageError, match="no GPU, there are 2"):
        rank_device(torch.device("cuda"), {**environment, "LOCAL_RANK": "2"})
    with pytest.raises(UsageError, match="cannot train on mps"):
        rank_device(torch.device("mps"), environment)


class _Witness:
    """Lives as long as the frame of a failed action."""


def _fail(seen: list[weakref.ref[_Witness]]) -> None:
    witness = _Witness()
    seen.append(weakref.ref(witness))
    raise KeyError("x")


def test_the_frames_of_a_failed_action_are_released_with_its_error() -> None:
    """Without the garbage collector: an error in a cycle with its frames keeps batches and activations alive."""
    seen: list[weakref.ref[_Witness]] = []
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(KeyError):
            SINGLE.run_on_all(lambda: _fail(seen))
        try:
            SINGLE.run_on_all(lambda: _fail(seen))
        except KeyError:
            assert seen[1]() is not None
        assert seen[1]() is None
    finally:
        gc.enable()


class FakeGroup:
    """Stands in for NCCL's process group, and keeps what is done to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        monkeypatch.setattr(dist, "init_process_group", self.init)
        monkeypatch.setattr(dist, "destroy_process_group", lambda *given: self.done.append("destroyed"))
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: self.done.append(str(device)))

    def init(self, backend: str, *given: Any, **options: Any) -> None:
        self.done.append(backend)


@pytest.mark.parametrize("error", [ValueError("no such augmentation"), KeyboardInterrupt(), SystemExit(3)])
def test_group_is_not_destroyed_after_an_error(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """NCCL's teardown would wait for the peers, which wait for this rank, before the error is printed."""
    group = FakeGroup(monkeypatch)
    environment, device = {"RANK": "0", "WORLD_SIZE": "2"}, torch.device("cuda", 1)
    with pytest.raises(type(error)) as raised, joined_ranks(environment, device):
        raise error
    assert raised.value is error
    assert group.done == ["cuda:1", "cpu:gloo,cuda:nccl"]
    with joined_ranks(environment, device):
        pass
    assert group.done[2:] == ["cuda:1", "cpu:gloo,cuda:nccl", "destroyed"]


def test_lost_connections_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    group = FakeGroup(monkeypatch)
    broken = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3")
    with (
        pytest.raises(RunError, match="rank 0 of 2 lost contact with another one"),
        joined_ranks({"RANK": "0", "WORLD_SIZE": "2"}, CPU),
    ):
        raise broken
    assert group.done == ["gloo"]
