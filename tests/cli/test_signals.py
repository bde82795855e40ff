from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from cli import main_group
from cli.main_group import ending_on_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals to this process")


@pytest.fixture(autouse=True)
def python_handlers():
    """As a program finds them; a process that was started in the background ignores SIGINT."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, earlier, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def exits(monkeypatch):
    """Codes of ends at once, which would end the tests."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])
    return codes


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_interrupts_and_the_handlers_come_back(name):
    before = signal.getsignal(signal.Signals[name])
    with pytest.raises(KeyboardInterrupt), ending_on_signals(is_program=False):
        os.kill(os.getpid(), signal.Signals[name])
    assert signal.getsignal(signal.Signals[name]) is before


def test_the_second_signal_ends_at_once_with_one_line(exits, capfd):
    with ending_on_signals(is_program=False):
        for number in (signal.SIGINT, signal.SIGTERM):
            # The faked end returns, and the handler goes on as for a first signal.
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    assert exits == [130]
    assert capfd.readouterr().err == "Error: interrupted twice: ended at once\n"


def test_the_second_signal_ends_processes_that_were_started(exits, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        # This process may have others, of other tests.
        monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [psutil.Process(child.pid)])
        with ending_on_signals(is_program=False):
            for _ in range(2):
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
        assert child.wait(20) == -signal.SIGKILL


def test_a_signal_after_the_work_keeps_its_exit_code_and_says_nothing(exits, capfd):
    with pytest.raises(SystemExit), ending_on_signals(is_program=True):
        raise SystemExit(2)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert exits == [2]
    assert capfd.readouterr().err == ""


def test_ignored_signals_stay_ignored_as_under_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_on_signals(is_program=False):
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_other_threads_change_nothing():
    seen = []

    def look() -> None:
        with ending_on_signals(is_program=False):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("start_s", [0, 0.1])
def test_a_signal_that_python_can_only_print_comes_again(start_s, capsys, monkeypatch):
    """What a destructor raises cannot leave it; on a busy machine a thread takes long to start."""
    start = threading.Timer.start
    slow = [start_s]

    def start_slowly(timer):
        start(timer)
        time.sleep(slow.pop() if slow else 0)

    monkeypatch.setattr(threading.Timer, "start", start_slowly)

    class Destroyed:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def work():
        Destroyed()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt), ending_on_signals(is_program=False):
        work()
    assert "Traceback" not in capsys.readouterr().err


def test_on_windows_a_signal_comes_again_without_ending_the_process(monkeypatch):
    """There `os.kill` is TerminateProcess."""
    ended: list[object] = []
    monkeypatch.setattr(main_group, "_IS_WINDOWS", True)
    monkeypatch.setattr(os, "kill", lambda *of_whom: ended.append(of_whom))

    class Destroyed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work():
        Destroyed()
        for _ in range(500):
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt), ending_on_signals(is_program=False):
        work()
    assert ended == []
