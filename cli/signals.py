"""How a program ends on Ctrl-C and other signals: one line, no traceback, exit code 128 + the signal's number."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from leukemia_data.errors import LeukemiaError

# SIGTERM comes from batch systems, SIGHUP from a terminal that is closed, SIGBREAK from Windows' Ctrl-Break.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# Until the callback that swallowed a signal has returned.
_AGAIN_AFTER_S = 0.02
_AT_ONCE = b"Error: interrupted twice: ended at once\n"


def interrupted_exit_code(number: int = signal.SIGINT) -> int:
    """Exit code of a program that a signal ended, as shells tell it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


class _Ending:
    """Handler of all signals: the first raises KeyboardInterrupt, a second one terminates the process immediately."""

    def __init__(self) -> None:
        self.is_asked = False
        self.is_over = False
        self.number: int | None = None
        self.exit_code = LeukemiaError.exit_code

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked or self.is_over:
            # Whatever waits, such as a thread on a network that hangs, is left to the system.
            if not self.is_over:
                os.write(2, _AT_ONCE)
            _end_children()
            os._exit(self.exit_code)
        self.is_asked = True
        self.number = number
        self.exit_code = interrupted_exit_code(number)
        raise KeyboardInterrupt

    def come_again(self) -> None:
        """Send the signal once more: its KeyboardInterrupt was raised where Python prints and ignores it."""
        self.is_asked = False
        timer = threading.Timer(_AGAIN_AFTER_S, os.kill, (os.getpid(), self.number))
        timer.daemon = True
        timer.start()

    def code_of(self, done: SystemExit) -> int | str | None:
        """Return the exit code; work that failed after a signal was interrupted, whatever error it became."""
        is_failure = done.code in (LeukemiaError.exit_code, interrupted_exit_code())
        if is_failure and self.number is not None:
            return interrupted_exit_code(self.number)
        return done.code


def _end_children() -> None:
    """Kill the processes that this one started, but those that clean up after it and end by themselves."""
    # In the middle of whatever was interrupted anything may fail, and the end must not.
    with suppress(Exception):
        import psutil

        for child in psutil.Process().children(recursive=True):
            if not any("resource_tracker" in word for word in child.cmdline()):
                child.kill()


@contextmanager
def ending_on_signals(*, is_program: bool) -> Iterator[None]:
    """Turn the first signal into KeyboardInterrupt for the block; a second signal terminates immediately.

    A SystemExit with the code of failed work leaves the block with :func:`interrupted_exit_code` if a signal came.
    Signals that somebody else handles, or that are ignored as under ``nohup``, stay so.

    Parameters
    ----------
    is_program
        Whether the process ends after the block: then signals that come while it does so end it silently, with
        the code that it was ending with. Otherwise the earlier handlers come back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = _Ending()
    numbers = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]
    untouched = (signal.SIG_DFL, signal.default_int_handler)
    earlier = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) in untouched}
    for number in earlier:
        signal.signal(number, ending)
    earlier_hook = sys.unraisablehook

    def on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt and ending.is_asked:
            ending.come_again()
        else:
            earlier_hook(unraisable)

    sys.unraisablehook = on_unraisable
    try:
        yield
    except SystemExit as done:
        done.code = ending.code_of(done)
        ending.exit_code = done.code if isinstance(done.code, int) else ending.exit_code
        raise
    finally:
        ending.is_over = True
        sys.unraisablehook = earlier_hook
        if not is_program:
            for number, handler in earlier.items():
                signal.signal(number, handler)
