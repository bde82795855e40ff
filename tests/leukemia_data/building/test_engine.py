"""Engines by name, and settings of the building process that they must restore."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import pytest
from joblib.externals.loky import ProcessPoolExecutor

from leukemia_data.building.build_caches import build_caches
from leukemia_data.building.cluster_engine import ignoring_warnings, silently
from leukemia_data.building.engine import ENGINES, EngineChoice
from leukemia_data.building.process_engine import run_in_processes
from leukemia_data.building.shard_maker import run_serially
from leukemia_data.building.shard_task import ShardResult, ShardTask, TaskRunner
from leukemia_data.decoding.decode import one_opencv_thread
from leukemia_data.errors import UsageError

from ..helpers import all_shards, build, make_plan, make_source, python_environment, run_here

NAMES = ["local", "dask", "ray", "serial"]


class Backwards:
    """A custom engine: the last task first."""

    name = "backwards"

    def check(self, address: str | None, n_jobs: int) -> None:
        if address is not None:
            raise UsageError("nowhere")

    def runner(self, address: str | None, n_jobs: int) -> TaskRunner:
        def run(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
            for position in reversed(range(len(tasks))):
                yield position, next(iter(run_here([tasks[position]])))[1]

        return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def test_names_are_known_without_loading_an_engine():
    assert list(ENGINES) == NAMES
    code = "import sys, leukemia_data.building.engine as e; print(e.ENGINES.names(), 'joblib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{tuple(NAMES)} False"


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_says_its_name_and_what_runs_tasks(name):
    engine = ENGINES.get(name)
    assert engine.name == name
    engine.check(None, -1)
    assert callable(engine.runner(None, 1))


def test_a_custom_engine_makes_the_same_bytes(source, tmp_path):
    with ENGINES.temporarily("backwards", Backwards()):
        for name, engine in (("own", "backwards"), ("usual", "serial")):
            build_caches(
                [source], sizes_px=[16], recipe="raw", cache_root=tmp_path / name, shard_size=8, engine=engine, name="x"
            )
        with pytest.raises(UsageError, match="nowhere"):
            build_caches([source], sizes_px=[24], cache_root=tmp_path / "own", engine="backwards", address="x:1")
    assert all_shards(tmp_path / "own") == all_shards(tmp_path / "usual")
    with pytest.raises(UsageError, match="unknown engine 'backwards'"):
        EngineChoice("backwards")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("local", None, 0), "--n-jobs"),
        (("lokal", None, 1), "did you mean 'local'"),
        (("local", "tcp://x:1", -1), "--engine dask"),
    ],
)
def test_wrong_choices(arguments, word):
    with pytest.raises(UsageError, match=word):
        EngineChoice(*arguments)


@pytest.mark.parametrize(
    ("choice", "num_tasks"), [(("local", None, 1), 9), (("local", None, 4), 1), (("ray", None, 4), 0)]
)
def test_this_process_where_others_gain_nothing(choice, num_tasks):
    assert EngineChoice(*choice).runner(num_tasks) is run_serially


# --- what is the process's


def test_opencv_is_as_before_after_tasks_in_this_process(source, tmp_path):
    cv2.setNumThreads(3)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        build(source, tmp_path / "cache", engine=run_serially)
        assert cv2.getNumThreads() == 3
        assert cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_WARNING
    finally:
        cv2.setNumThreads(-1)


def test_overlapping_blocks_leave_opencv_as_it_was():
    cv2.setNumThreads(3)
    first, second = one_opencv_thread(), one_opencv_thread()
    try:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(-1)


def test_workers_of_others_survive_a_build_that_fails(source, tmp_path):
    """joblib's workers are killed at once; other children of the program are not."""
    with ProcessPoolExecutor(2) as others:
        pids = [others.submit(abs, -1).result(), *others._processes]
        plan = make_plan(source, tmp_path / "cache")
        for target in plan.targets:
            target.target.directory.mkdir(parents=True)
        answers = run_in_processes(2)(list(plan.tasks))
        next(answers)
        with pytest.raises(ZeroDivisionError):
            answers.throw(ZeroDivisionError())
        assert others.submit(abs, -2).result(timeout=30) == 2
        assert pids[1:] == list(others._processes)


def chatty(num: int) -> Iterator[int]:
    """An engine that prints in the building process."""
    try:
        for number in range(num):
            print("engine")
            yield number
    finally:
        print("engine's end")


def test_output_of_an_engine_is_silenced_and_that_of_its_caller_is_not(capsys):
    run = silently(lambda tasks: chatty(len(tasks)), lambda: redirect_stdout(StringIO()))  # type: ignore[arg-type]
    answers = run([None] * 3)  # type: ignore[list-item]
    print("caller", next(answers))
    print("caller", next(answers))
    answers.close()
    print("caller's end")
    assert capsys.readouterr().out.splitlines() == ["caller 0", "caller 1", "caller's end"]


def test_only_the_warnings_of_the_named_packages_are_ignored():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with ignoring_warnings("dask"):
            warnings.warn_explicit("a", UserWarning, "x.py", 1, module="dask.array")
            warnings.warn_explicit("b", UserWarning, "x.py", 1, module="joblib")
            warnings.warn_explicit("c", UserWarning, "x.py", 1, module="daskette")
            warnings.warn_explicit("d", UserWarning, "x.py", 1, module="mine")
    assert [str(each.message) for each in heard] == ["c", "d"]
