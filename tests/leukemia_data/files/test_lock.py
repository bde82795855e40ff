from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leukemia_data.errors import CacheError
from leukemia_data.files.lock import LOCK_NAME, lock_cache

from ..helpers import python_environment

HOLD = """
import sys
from pathlib import Path
from leukemia_data.files.lock import lock_cache
with lock_cache(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "cache")]
    with subprocess.Popen(
        command, env=python_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_makes_the_directory_and_may_be_taken_again(tmp_path):
    directory = tmp_path / "a" / "b"
    for _ in range(2):
        with lock_cache(directory):
            assert (directory / LOCK_NAME).exists()


def test_second_holder_in_the_same_process_is_refused_at_once(tmp_path):
    with lock_cache(tmp_path):
        with pytest.raises(CacheError, match="another build or gc is working on"), lock_cache(tmp_path):
            pass
        with pytest.raises(CacheError), lock_cache(tmp_path):
            pass
    with lock_cache(tmp_path):
        pass


def test_holders_in_two_processes_exclude_each_other(tmp_path, holder):
    with pytest.raises(CacheError, match="another build or gc"), lock_cache(tmp_path / "cache"):
        pass
    with lock_cache(tmp_path / "other"):
        pass
    holder.communicate("", timeout=10)
    with lock_cache(tmp_path / "cache"):
        pass


def test_released_when_its_holder_is_killed(tmp_path, holder):
    holder.kill()
    holder.wait(timeout=10)
    with lock_cache(tmp_path / "cache"):
        pass


def test_released_when_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), lock_cache(tmp_path):
        raise ZeroDivisionError
    with lock_cache(tmp_path):
        pass


def test_place_that_cannot_be_a_directory_is_told(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheError, match="cannot be written"), lock_cache(path):
            pass
    assert Path(tmp_path / "file").read_text(encoding="utf-8") == "x"
