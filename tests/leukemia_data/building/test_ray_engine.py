"""Builds on a real local Ray, one of whose workers is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence

import psutil
import pytest
import ray
from ray._private import worker

from leukemia_data.building.ray_engine import run_on_ray
from leukemia_data.building.shard_task import ShardResult, ShardTask
from leukemia_data.errors import BuildError

from ..helpers import all_shards, build, make_source

CAPACITY = 2


def worker_pids() -> list[int]:
    """Processes of Ray that run tasks, of those that this one started."""
    children = psutil.Process().children(recursive=True)
    return sorted(child.pid for child in children if child.name().startswith("ray::PoolActor"))


def tell_of_a_lost_worker() -> None:
    """Do what Ray's own thread does when the message arrives."""
    message = {"lines": ["The actor is dead"], "pid": "raylet", "is_err": False}
    teller = threading.Thread(
        target=lambda: worker.print_to_stdstream(message, ignore_prefix=False), name="ray_listen_error_messages"
    )
    teller.start()
    teller.join()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by a signal")
def test_same_bytes_as_a_local_build_though_a_worker_is_killed_in_the_middle(tmp_path, monkeypatch, capfd):
    """Ray leaves no output, no process after the build, and no signal handlers."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    source = make_source(tmp_path / "source", 48)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    killed = []

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        for answer in run_on_ray(None, 2)(tasks):
            if not killed:
                assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
                pids = worker_pids()
                assert len(pids) == 2
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)
            print("printed")
            tell_of_a_lost_worker()
            yield answer

    build(source, tmp_path / "cache", capacity=CAPACITY, engine=run)
    build(source, tmp_path / "local", capacity=CAPACITY)
    assert all_shards(tmp_path / "cache") == all_shards(tmp_path / "local")
    assert killed
    assert worker_pids() == []
    assert not ray.is_initialized()
    assert worker.print_to_stdstream.__module__ == worker.__name__
    said = capfd.readouterr()
    assert (set(said.out.split()), said.err) == ({"printed"}, "")


def test_no_cluster_to_find(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(BuildError, match="no Ray cluster answers at address auto"):
        list(run_on_ray("auto", 2)([object()]))


def test_no_tasks():
    assert list(run_on_ray("auto", 2)([])) == []
