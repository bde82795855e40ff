"""Functions in a forked process: everything is imported already, so a process costs milliseconds and can be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TRACEBACK_EXIT = 99
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    Attributes
    ----------
    exit_code
        None where a signal ended it.
    signal_number
        The signal that ended it; None where it ended by itself.
    output
        What it said on stdout and stderr.
    """

    exit_code: int | None
    signal_number: int | None
    output: str

    @property
    def has_traceback(self) -> bool:
        """Whether an error came through that nobody had expected."""
        return self.exit_code == TRACEBACK_EXIT or "Traceback" in self.output


class Forked:
    """A function that runs in a process of its own, which begins as a copy of this one.

    Parameters
    ----------
    action : callable
        What to do there. An error that comes out of it is written down with its traceback.
    log : Path
        Takes what the process says; is begun anew.
    """

    def __init__(self, action: Callable[[], object], log: Path) -> None:
        self._log = log
        log.write_bytes(b"")
        with warnings.catch_warnings():
            # Python warns of other threads: those of pytest hold no lock that an action needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _act(action, log)

    def ending(self, kill_after_s: float | None, at_most_s: float) -> Ending:
        """Wait for the end; kill the process after a while.

        Raises
        ------
        TimeoutError
            If it did not end by itself within `at_most_s`, and was not to be killed before; it is killed then.
        """
        if kill_after_s is not None and not self._is_over_within(kill_after_s):
            os.kill(self._pid, signal.SIGKILL)
        elif kill_after_s is None and not self._is_over_within(at_most_s):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise TimeoutError(f"a process did not end within {at_most_s:g} s: {self._said()[-500:]}")
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return Ending(code if code >= 0 else None, -code if code < 0 else None, self._said())

    def _is_over_within(self, seconds: float) -> bool:
        deadline_s = time.monotonic() + seconds
        # Told without being collected: its number stays its own until `ending` does that.
        while os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_POLL_S)
        return True

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def _act(action: Callable[[], object], log: Path) -> None:
    """Run the action and end the process, without the clean-up that belongs to the process it was copied from."""
    code = TRACEBACK_EXIT
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        action()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
