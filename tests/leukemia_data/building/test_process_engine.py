from __future__ import annotations

import os
import signal
import threading
import time

import joblib
import psutil
import pytest

from leukemia_data.building.process_engine import holding_signals, is_child_of, num_processes, run_in_processes

from ..helpers import all_shards, build, make_plan, make_source


@pytest.mark.parametrize("n_jobs", [1, 2, 7])
def test_positive_n_jobs_is_the_number_of_processes(n_jobs):
    assert num_processes(n_jobs) == n_jobs


def test_negative_n_jobs_counts_back_from_all_cores():
    cores = joblib.cpu_count()
    assert num_processes(-1) == cores
    assert num_processes(-2) == max(cores - 1, 1)
    assert num_processes(-1000) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_is_answered_once_whatever_the_order(tmp_path, processes):
    plan = make_plan(make_source(tmp_path / "source", 24), tmp_path / "cache")
    for target in plan.targets:
        target.target.directory.mkdir(parents=True)
    tasks = list(plan.tasks)
    answers = dict(run_in_processes(processes)(tasks))
    assert sorted(answers) == list(range(len(tasks)))
    for position, task in enumerate(tasks):
        assert answers[position].tables[16].id_texts == [record.record_id for record in task.records]


def test_no_tasks():
    assert list(run_in_processes(2)([])) == []


def test_same_files_for_one_and_two_processes_and_this_one(tmp_path):
    source = make_source(tmp_path / "source")
    build(source, tmp_path / "here")
    build(source, tmp_path / "one", engine=run_in_processes(1))
    build(source, tmp_path / "two", engine=run_in_processes(2))
    here = all_shards(tmp_path / "here")
    assert here == all_shards(tmp_path / "one") == all_shards(tmp_path / "two")
    assert sum(map(len, here.values())) > 6


def test_workers_know_their_parent():
    assert is_child_of(os.getppid())
    assert not is_child_of(max(psutil.pids()) + 100_000)


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_ctrl_c_is_held_back_though_another_thread_could_take_it():
    """Threads of OpenCV and of stores' clients do not have this thread's signal mask."""
    seen = []

    def work() -> None:
        with holding_signals():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            seen.append("the end of the block")
        seen.append("what follows")

    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    # In tests that run in the background of a shell the signal is ignored.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, earlier)
        is_over.set()
        thread.join()
    assert seen == ["the end of the block"]
