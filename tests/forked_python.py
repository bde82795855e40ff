"""Interpreters that cost no start: ``[*forked_python(), "-m", "cli.ldata", ...]`` instead of ``[sys.executable, ...]``.

One process loads torch and the packages under test, then forks a process for each command: a real one, with its own
environment, folder, standard streams, signals and exit code. For tests of what a program does, not of how it starts or
of what it loads; hashes of texts have the same seed in all of them. Not on Linux it is ``sys.executable`` itself.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import io
import marshal
import multiprocessing.process
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import psutil

ROOT = Path(__file__).parents[1]
PACKAGES = ("leukemia_data", "leukemia_models", "cli")
OTHERS = ("torch._dynamo", "torch.distributed.run", "tests.blank_figures", "s3fs", "hdf5plugin")
ADDRESS = "FORKED_PYTHON"
START_S = 400
_CLIENT = Path(__file__).with_name("forked_client.py")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@functools.cache
def forked_python() -> tuple[str, ...]:
    """Beginning of a command line that runs as Python does (``-c``, ``-m`` or a script)."""
    if not sys.platform.startswith("linux"):
        return (sys.executable,)
    address = os.environ.get(ADDRESS) or start_server()
    deadline_s = time.monotonic() + START_S
    while not Path(address).exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert Path(address).exists(), f"the server of {__name__} has not started"
    return (sys.executable, "-I", "-S", str(_CLIENT), address)


def start_server() -> str:
    """Start the process that forks, and return the socket that it makes when it is ready; it ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="forked-")
    atexit.register(folder.cleanup)
    address = Path(folder.name) / "socket"
    # It ends when its standard input does.
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_python", address],
        cwd=ROOT,
        env={**os.environ, **_ONE_THREAD, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
    )
    assert server.stdin is not None
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return str(address)


def _preload() -> None:
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in OTHERS:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)


class _Server:
    """Answers clients until standard input ends; a connection is open as long as its process lives."""

    def __init__(self, address: str) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(address)
        self._listening.listen(64)
        self._clients: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._ended, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake)
        for place in (self._listening, self._ended, 0):
            self._selector.register(place, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == 0:
                    self._end_all()
                    return
                if key.fileobj == self._ended:
                    os.read(self._ended, 4096)
                    self._report_ended()
                elif key.fileobj is self._listening:
                    self._accept()
                elif key.data in self._clients:
                    self._pass_on(key.data)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        header, streams, _, _ = socket.recv_fds(client, 8, 3)
        if len(header) < 8:
            client.close()
            return
        arguments, folder, environment, ignored = marshal.loads(_receive(client, int.from_bytes(header, "big")))
        pid = os.fork()
        if pid == 0:
            self._leave(client)
            _become(arguments, folder, environment, ignored, streams)
        for stream in streams:
            os.close(stream)
        self._clients[pid] = client
        self._selector.register(client, selectors.EVENT_READ, pid)

    def _leave(self, client: socket.socket) -> None:
        """In the child: keep nothing of the server's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for each in (self._listening, client, *self._clients.values()):
            each.close()
        os.close(self._ended)
        os.close(self._wake)

    def _pass_on(self, pid: int) -> None:
        """Send a process the signals of its client, or end it with its client."""
        with suppress(ConnectionError):
            for number in self._clients[pid].recv(16):
                os.kill(pid, number)
                return
        _kill_tree(pid)
        self._selector.unregister(self._clients[pid])

    def _report_ended(self) -> None:
        for pid, client in list(self._clients.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if not found:
                continue
            del self._clients[pid]
            with suppress(KeyError):
                self._selector.unregister(client)
            with suppress(OSError):
                client.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
            client.close()

    def _end_all(self) -> None:
        for pid in self._clients:
            _kill_tree(pid)


def _kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (*parent.children(recursive=True), parent):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _receive(client: socket.socket, num_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < num_bytes and (part := client.recv(num_bytes - len(data))):
        data += part
    return bytes(data)


def _become(
    arguments: list[str], folder: str, environment: dict[str, str], ignored: list[int], streams: Sequence[int]
) -> NoReturn:
    """In the child: be the interpreter that the client stands for, and end as it would."""
    os.setsid()
    os.chdir(folder)
    multiprocessing.process.ORIGINAL_DIR = folder  # where spawned workers look for the script
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN if signal.SIGINT in ignored else signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    _open_streams(environment)
    own = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = ["", *own, *_INTERPRETERS_PATH]
    importlib.invalidate_caches()
    code = 1
    try:
        _run(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _open_streams(environment: dict[str, str]) -> None:
    encoding, _, errors = environment.get("PYTHONIOENCODING", "").partition(":")
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        own_errors = "backslashreplace" if name == "stderr" else errors or "strict"
        opened = open(descriptor, "wb" if descriptor else "rb", closefd=False)  # noqa: SIM115 - open to the end
        text = io.TextIOWrapper(opened, encoding or "utf-8", own_errors, line_buffering=name == "stderr")
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _run(arguments: list[str]) -> None:
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    first, *rest = arguments
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = str(Path.cwd())
        sys.modules.pop(rest[0], None)
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    else:
        assert not first.startswith("-"), f"not an option of forked interpreters: {first}"
        sys.argv = arguments
        sys.path[0] = str(Path(first).parent)
        main.__file__ = first
        exec(compile(Path(first).read_text(encoding="utf-8"), first, "exec"), main.__dict__)


_INTERPRETERS_PATH: list[str] = []


def main(address: str) -> None:
    _preload()
    # Without what PYTHONPATH and -m have added.
    _INTERPRETERS_PATH[:] = [place for place in sys.path if place not in ("", str(ROOT))]
    gc.collect()
    gc.freeze()  # a collection in a child would copy all of these pages
    server = _Server(address)
    server.serve()


if __name__ == "__main__":
    main(sys.argv[1])
