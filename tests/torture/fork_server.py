"""Runs of ``ldata`` that cost no start: a process that has loaded everything forks one child a run.

Each child leads a process group of its own, so that it can be killed with all that it started. A server runs one child
at a time and tells how it ended. POSIX only.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
END_WITHIN_S = 5.0
_PRELOADED = (
    "cli.ldata.build",
    "leukemia_data.building.listed_build",
    "cli.ldata.keep",
    "leukemia_data.building.process_engine",
    "tests.torture.faulty_files",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: exit code (negative: the signal), seconds it took, what it wrote."""

    code: int
    seconds: float
    out: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        """Lines on stderr that are no notes."""
        lines = [line for line in self.errors.splitlines() if not line.startswith(("source: ", "note: ", "  "))]
        # joblib's clean-up process may warn, harmlessly, of a semaphore that is gone already.
        return [line for line in lines if "resource_tracker" not in line and "warnings.warn" not in line]


@dataclass
class Running:
    """A run that has begun."""

    pid: int
    started_s: float
    _server: ForkServer = field(repr=False)

    def members(self) -> list[psutil.Process]:
        """Living processes of the run's group, the leader among them."""
        try:
            # Looking through all processes takes longer than asking for one of the group.
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return []
        return [process for process in psutil.process_iter() if _is_member(process, self.pid)]

    def workers(self) -> list[psutil.Process]:
        """Living worker processes of the run."""
        return [process for process in self.members() if "popen_loky" in " ".join(_command_line(process))]

    def is_alive(self) -> bool:
        """Whether the run's own process is still there."""
        return _is_alive(self.pid)

    def signal_leader(self, number: int) -> None:
        """Send a signal to the run's own process alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to all processes of the run, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float = 60.0) -> Ended:
        """Wait for the run's own process; it is killed with its group when it takes too long."""
        return self._server.wait_for(self, timeout_s)

    def orphans(self, within_s: float = END_WITHIN_S) -> list[str]:
        """Command lines of processes that outlive the run by so long; they are killed."""
        deadline = time.monotonic() + within_s
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.02)
        lines = [" ".join(_command_line(process))[:200] for process in left]
        if left:
            self.signal_group(signal.SIGKILL)
        return lines


class ForkServer:
    """Starts runs of ``ldata``, one at a time.

    Parameters
    ----------
    work_dir
        Where output and temporary files go.
    """

    def __init__(self, work_dir: Path) -> None:
        self._folder = work_dir
        self._temporary = work_dir / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        own = {"TMPDIR": str(self._temporary), "JOBLIB_TEMP_FOLDER": str(self._temporary)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.fork_server"],
            cwd=ROOT,
            env={**os.environ, **own, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def start(self, arguments: Sequence[str | Path], **settings: Any) -> Running:
        """Begin ``ldata``.

        Parameters
        ----------
        arguments
            Of the command.
        **settings
            ``file_limit_bytes``: no file may grow larger (RLIMIT_FSIZE). ``memory_limit_bytes``: of each process
            (RLIMIT_AS). ``kill_at`` and ``below``: SIGKILL at the n-th call that concerns a folder. ``count_into``
            and ``below``: the number of those calls is written into a file.
        """
        request = {"arguments": [str(argument) for argument in arguments], "folder": str(self._folder), **settings}
        assert self._process.stdin is not None
        for name in ("stdout", "stderr"):
            # There, though empty, if the run is killed before it opens them itself.
            (self._folder / name).write_bytes(b"")
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        return Running(int(self._read()["pid"]), time.monotonic(), self)

    def run(self, arguments: Sequence[str | Path], **settings: Any) -> Ended:
        """Run ``ldata`` to its end; the settings are those of :meth:`start`."""
        return self.start(arguments, **settings).wait()

    def code_and_errors(self, arguments: Sequence[str | Path]) -> tuple[int, str]:
        """Run ``ldata`` to its end: exit code, and what it wrote on stderr."""
        ended = self.run(arguments)
        return ended.code, ended.errors

    def wait_for(self, running: Running, timeout_s: float) -> Ended:
        """See :meth:`Running.wait`."""
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            running.signal_group(signal.SIGKILL)
        answer = self._read()
        _remove_semaphores(running.pid)
        texts = [(self._folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")]
        return Ended(int(answer["code"]), float(answer["seconds"]), *texts)

    def has_written(self) -> bool:
        """Whether the run at hand has written anything on stderr."""
        path = self._folder / "stderr"
        return path.exists() and path.stat().st_size > 0

    def temporary_files(self) -> list[str]:
        """What runs have left in the folder for temporary files."""
        return sorted(path.name for path in self._temporary.iterdir())

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the fork server has died")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def fork_server(work_dir: Path) -> Iterator[ForkServer]:
    """A server for the block."""
    server = ForkServer(work_dir)
    try:
        yield server
    finally:
        server.close()


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_member(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _remove_semaphores(pid: int) -> None:
    """A group killed whole cannot remove the names of its semaphores; those of a thousand would pile up."""
    for path in Path("/dev/shm").glob(f"sem.loky-{pid}-*"):
        path.unlink(missing_ok=True)


def _serve() -> None:
    """Answer requests, one line of JSON each, until there are no more."""
    for name in _PRELOADED:
        importlib.import_module(name)
    _answer({"ready": True})
    for line in sys.stdin:
        started_s = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line))
        # In both processes, so that neither can be early.
        _lead_group(pid)
        _answer({"pid": pid})
        _, status = os.waitpid(pid, 0)
        _answer({"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started_s})


def _lead_group(pid: int) -> None:
    # One of the two processes is second, or the child is gone.
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def _answer(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _run(request: dict[str, Any]) -> None:
    """The child: output to files, limits, faults, then the command; it ends as any program does."""
    from cli.ldata import main

    _lead_group(0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _redirect(Path(request["folder"]))
    _limit(request)
    # As a program: with arguments of its own, the command would give back the handlers of signals.
    sys.argv = ["ldata", *request["arguments"]]
    main()


def _redirect(folder: Path) -> None:
    """Standard input from nothing, output into two files, as a shell would."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, name in ((0, os.devnull), (1, folder / "stdout"), (2, folder / "stderr")):
        opened = os.open(name, flags if descriptor else os.O_RDONLY)
        os.dup2(opened, descriptor)
        os.close(opened)


def _limit(request: dict[str, Any]) -> None:
    import resource

    from .faulty_files import Fault, FaultyFiles

    for name, limit in (("file_limit_bytes", resource.RLIMIT_FSIZE), ("memory_limit_bytes", resource.RLIMIT_AS)):
        if request.get(name) is not None:
            resource.setrlimit(limit, (int(request[name]), int(request[name])))
    if request.get("kill_at") is not None:
        fault = Fault(int(request["kill_at"]), lambda _: os.kill(os.getpid(), signal.SIGKILL))
        FaultyFiles(Path(request["below"]), fault).__enter__()
    if request.get("count_into") is not None:
        files = FaultyFiles(Path(request["below"])).__enter__()
        atexit.register(lambda: Path(request["count_into"]).write_text(str(files.counts[None]), encoding="ascii"))


if __name__ == "__main__":
    _serve()
