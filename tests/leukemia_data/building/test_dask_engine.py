"""Builds on a real scheduler with two worker processes on loopback, one of which is killed."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster

from leukemia_data.building import dask_engine
from leukemia_data.building.dask_engine import run_on_dask
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner
from leukemia_data.errors import BuildError, UsageError
from leukemia_data.sources.source import list_source

from ...forked_python import forked_python
from ..helpers import all_shards, build, make_plan, make_source, python_environment
from .killing import SPARED, KillingPath

CAPACITY = 2


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A command of Dask as a process; a task is given up when one worker has died of it."""
    environment = python_environment(
        OMP_NUM_THREADS="1", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0", PYTHONWARNINGS="ignore"
    )
    return subprocess.Popen(
        [*forked_python(), "-m", "dask", *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Scheduler file of a cluster with two single-threaded worker processes; a worker that died is started anew."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    at = ("--host", "127.0.0.1", "--no-dashboard")
    processes = [start("scheduler", "--port", "0", "--scheduler-file", str(file), *at)]
    try:
        while not file.is_file():
            time.sleep(0.05)
        options = ("--nworkers", "2", "--nthreads", "1", "--local-directory", str(file.parent), *at)
        processes.append(start("worker", "--scheduler-file", str(file), *options))
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield file
    finally:
        for process in reversed(processes):
            end(process)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("images"), 48)


@pytest.fixture(scope="module")
def local(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    cache = tmp_path_factory.mktemp("local")
    build(source, cache, capacity=CAPACITY)
    return all_shards(cache)


def worker_pids(scheduler: Path) -> set[int]:
    """Of both workers: one that a test has killed is waited for until it is started anew."""
    with Client(scheduler_file=str(scheduler), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        return set(client.run(os.getpid).values())


def after_first(engine: TaskRunner, act: Callable[[], None]) -> TaskRunner:
    """The engine; when its first shard is there, `act` is called."""

    def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        for number, answer in enumerate(engine(tasks)):
            if number == 0:
                act()
            yield answer

    return run


@pytest.mark.skipif(os.name == "nt", reason="kills by a signal")
def test_same_bytes_as_a_local_build_though_a_worker_is_killed_in_the_middle(scheduler, source, local, tmp_path):
    pids = worker_pids(scheduler)
    assert len(pids) == 2
    engine = after_first(run_on_dask(str(scheduler), 2), lambda: os.kill(min(pids), signal.SIGKILL))
    build(source, tmp_path / "cache", capacity=CAPACITY, engine=engine)
    assert all_shards(tmp_path / "cache") == local
    assert min(pids) not in worker_pids(scheduler)


@pytest.mark.skipif(os.name == "nt", reason="kills by a signal")
def test_a_task_that_kills_its_worker_every_time_ends_as_an_error_and_the_rest_is_kept(
    scheduler, source, tmp_path, monkeypatch
):
    monkeypatch.setenv(SPARED, str(os.getpid()))
    listing = list_source([source])
    records = list(listing.records)
    first = make_plan(listing, tmp_path / "cache").tasks[0].records[0]
    records[records.index(first)] = replace(first, path=KillingPath(first.path))
    with pytest.raises(BuildError, match=rf"that tried the shard of {first.record_id}, .* died .*KilledWorker"):
        build(
            replace(listing, records=tuple(records)),
            tmp_path / "cache",
            sizes_px=(16,),
            engine=run_on_dask(str(scheduler), 2),
        )
    kept = list(tmp_path.rglob("receipts/*.json"))
    # Shards of up to eight: all but the one that kills.
    assert len(kept) >= 48 // 8 - 1
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_task_s_own_error_comes_back_as_it_is(scheduler, source, tmp_path):
    """Workers that see another disk write their shards elsewhere; here they cannot write at all."""
    (tmp_path / "cache").write_bytes(b"")
    listing = list_source([source])

    def misled(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        away = [
            replace(task, targets=tuple(replace(t, directory=tmp_path / "cache" / "no") for t in task.targets))
            for task in tasks
        ]
        yield from run_on_dask(str(scheduler), 2)(away)

    with pytest.raises(BuildError, match="a shard could not be written"):
        build(listing, tmp_path / "other", engine=misled)


def test_a_shard_that_only_its_worker_sees_is_missed(scheduler, source, tmp_path):
    """As with a folder that is local to each machine: it is made, but not where the caller looks."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def away(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        moved = [
            replace(task, targets=tuple(replace(target, directory=elsewhere) for target in task.targets[:1]))
            for task in tasks
        ]
        yield from run_on_dask(str(scheduler), 2)(moved)

    with pytest.raises(BuildError, match="was made by a worker but is not there: do all workers see this folder"):
        build(source, tmp_path / "cache", engine=away)
    assert not list(tmp_path.rglob("manifest.json"))


def test_the_cluster_is_still_there_after_an_interruption(scheduler, source, tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    pids = worker_pids(scheduler)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path, capacity=CAPACITY, engine=after_first(run_on_dask(str(scheduler), 2), interrupt))
    assert worker_pids(scheduler) == pids


def test_a_cluster_of_its_own_ends_with_the_build(source, local, tmp_path):
    before = set(psutil.Process().children(recursive=True))
    build(source, tmp_path / "cache", capacity=CAPACITY, engine=run_on_dask(None, 1))
    assert all_shards(tmp_path / "cache") == local
    left = set(psutil.Process().children(recursive=True)) - before
    assert [child.cmdline() for child in left if "resource_tracker" not in str(child.cmdline())] == []


def test_no_tasks():
    assert list(run_on_dask("127.0.0.1:1", 2)([])) == []


def test_a_server_that_is_no_scheduler_is_an_error_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "CONNECT_WITHIN_S", 0.3)
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, pytest.raises(BuildError, match="no Dask scheduler answers at address 127"):
        list(run_on_dask(f"127.0.0.1:{listener.getsockname()[1]}", 2)([None]))
    (tmp_path / "odd.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UsageError, match="no scheduler file of Dask"):
        list(run_on_dask(str(tmp_path / "odd.json"), 2)([None]))


def test_a_cluster_without_workers_is_an_error(source, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "_WORKERS_WITHIN_S", 0.5)
    with (
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        pytest.raises(BuildError, match="has no workers, and none came within"),
    ):
        build(source, tmp_path, engine=run_on_dask(cluster.scheduler_address, 2))


def test_output_of_the_caller_between_results_is_kept(scheduler, source, tmp_path, caplog, capsys):
    plan = make_plan(source, tmp_path / "cache", capacity=16)
    for target in plan.targets:
        target.target.directory.mkdir(parents=True)
    answers = run_on_dask(str(scheduler), 2)(list(plan.tasks))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(2):
            next(answers)
            print("printed")
            logging.getLogger("distributed.mine").error("logged")
            warnings.warn("warned", stacklevel=1)
        answers.close()
        print("printed")
        logging.getLogger("distributed.mine").error("logged")
    assert capsys.readouterr().out.split() == 3 * ["printed"]
    assert [record.message for record in caplog.records if record.name == "distributed.mine"] == 3 * ["logged"]
    assert [str(each.message) for each in heard if each.filename == __file__] == 2 * ["warned"]
