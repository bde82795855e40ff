from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from leukemia_data.errors import CacheError
from leukemia_data.files.lock import HOLDER_NAME, LOCK_NAME, SOFT_LOCK_NAME, lock_cache, lock_caches, read_holder

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
        with pytest.raises(CacheError, match="in use by another process"), lock_cache(tmp_path):
            pass
        with pytest.raises(CacheError), lock_cache(tmp_path):
            pass
    with lock_cache(tmp_path):
        pass


def test_holders_in_two_processes_exclude_each_other(tmp_path, holder):
    with pytest.raises(CacheError, match="in use by another process"), lock_cache(tmp_path / "cache"):
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


# --- who holds it


def test_the_message_names_the_holder(tmp_path, holder):
    with pytest.raises(CacheError) as caught, lock_cache(tmp_path / "cache"):
        pass
    told = re.search(r"\(build, process (\d+) on (\S+), since (.+?)\): wait", str(caught.value))
    assert told is not None
    assert (int(told[1]), told[2]) == (holder.pid, socket.gethostname())
    age_s = datetime.now(UTC) - datetime.fromisoformat(told[3])
    assert -2 < age_s.total_seconds() < 60


def test_the_note_names_the_work_and_is_removed_with_the_lock(tmp_path):
    with lock_cache(tmp_path, "gc"):
        holder = read_holder(tmp_path)
        assert holder is not None
        assert (holder.work, holder.pid) == ("gc", os.getpid())
    assert read_holder(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_note_of_a_dead_holder_is_of_no_account(tmp_path, holder):
    holder.kill()
    holder.wait(timeout=10)
    left = read_holder(tmp_path / "cache")
    assert left is not None
    assert left.pid == holder.pid
    with lock_cache(tmp_path / "cache"):
        taken = read_holder(tmp_path / "cache")
        assert taken is not None
        assert taken.pid == os.getpid()
    assert read_holder(tmp_path / "cache") is None


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"work": "build"}',
        b'{"work": "build", "pid": "many", "host": "a", "since": "b"}',
        b'{"work": "build", "pid": 1, "host": "\\u001b[2J", "since": "b"}',
        b'{"work": "build\\nError: x", "pid": 1, "host": "a", "since": "b"}',
        b'{"work": "' + b"x" * 2000 + b'", "pid": 1, "host": "a", "since": "b"}',
        b"[" * 900,
        b"[" * 1000,
    ],
)
def test_note_that_is_none_is_not_shown(tmp_path, note):
    with lock_cache(tmp_path):
        (tmp_path / HOLDER_NAME).write_bytes(note)
        assert read_holder(tmp_path) is None
        with (
            pytest.raises(CacheError, match=rf"{re.escape(str(tmp_path))} is in use by another process: wait"),
            lock_cache(tmp_path),
        ):
            pass


def test_the_lock_holds_though_its_note_cannot_be_written(tmp_path):
    (tmp_path / HOLDER_NAME).mkdir()
    for _ in range(2):
        with lock_cache(tmp_path), pytest.raises(CacheError, match="in use by"), lock_cache(tmp_path):
            pass


# --- waiting


def test_waits_for_the_holder_with_one_note(tmp_path, holder):
    told = []

    def let_go(busy: str) -> None:
        told.append(busy)
        holder.stdin.close()

    with lock_cache(tmp_path / "cache", on_busy=let_go):
        assert read_holder(tmp_path / "cache").pid == os.getpid()
    assert len(told) == 1
    assert f"process {holder.pid} on " in told[0]


def test_locks_are_taken_in_the_order_of_their_names(tmp_path):
    """A process that waits for the first lock holds no other, which prevents deadlock."""
    first, second = tmp_path / "128-a", tmp_path / "224-b"
    with lock_cache(first):
        for order in ([first, second], [second, first], [second, first, second]):
            with pytest.raises(CacheError, match="128-a"), lock_caches(order):
                pass
            with lock_cache(second):
                pass
    with lock_cache(second):
        with pytest.raises(CacheError, match="224-b"), lock_caches([second, first]):
            pass
        with lock_cache(first):
            pass
    with lock_caches([second, first]):
        for directory in (first, second):
            with pytest.raises(CacheError), lock_cache(directory):
                pass


# --- file systems without locks


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS])
def no_locks(request, monkeypatch):
    """As on a network file system without locks."""

    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("leukemia_data.files.lock.FileLock.acquire", refuse)


@pytest.mark.usefixtures("no_locks")
def test_a_file_stands_for_the_lock_where_there_are_none(tmp_path):
    for _ in range(2):
        with lock_cache(tmp_path, "gc"):
            with pytest.raises(CacheError) as caught, lock_cache(tmp_path):
                pass
            assert f"gc, process {os.getpid()} on" in str(caught.value)
            assert f"if that process is no more, remove {tmp_path / SOFT_LOCK_NAME}" in str(caught.value)
        assert not [path.name for path in tmp_path.iterdir() if path.name != LOCK_NAME]


@pytest.mark.usefixtures("no_locks")
def test_such_a_file_of_a_dead_process_is_recognised(tmp_path):
    hold = "import filelock, os, sys; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", hold, tmp_path / SOFT_LOCK_NAME], check=True)
    assert (tmp_path / SOFT_LOCK_NAME).exists()
    with lock_cache(tmp_path):
        pass
    assert not (tmp_path / SOFT_LOCK_NAME).exists()


# --- places that cannot be written


def test_the_error_of_another_users_folder_says_what_to_do(without_rights, shared_folder):
    with (
        without_rights(shared_folder),
        pytest.raises(CacheError, match=r"cannot be written: Permission denied; get the right .* or .* --cache"),
        lock_cache(shared_folder),
    ):
        pass
    assert list(shared_folder.iterdir()) == []


def test_place_that_cannot_be_a_directory_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheError, match="cannot be written"), lock_cache(path):
            pass
    assert Path(tmp_path / "file").read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize("work", ["build", "gc", "pull", "convert"])
def test_the_error_of_a_lock_names_the_holders_work(tmp_path, work):
    with lock_cache(tmp_path, work):
        told = rf"in use by another process \({work}, process {os.getpid()} "
        with pytest.raises(CacheError, match=told), lock_cache(tmp_path):
            pass
