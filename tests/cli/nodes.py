"""Machines of a cluster as processes on this one: a torchrun agent each, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
from torch.distributed import TCPStore

from ..forked_python import forked_python

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT_S = 240
# A node that is not heard of for 5 s is lost. With fewer nodes than at most they wait four seconds for more: where an
# agent comes later, torch restarts the others, and may wait in vain for them.
_MEETING = "is_host=false,last_call_timeout=4,keep_alive_interval=1,keep_alive_max_attempt=5"


class MeetingPlace:
    """What torchrun's agents meet through; here none of them keeps it, so that any of them may be lost."""

    def __init__(self) -> None:
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.endpoint = f"127.0.0.1:{self._store.port}"


class Node:
    """One machine with one process that trains, started by torchrun's agent; `home` is its working directory."""

    def __init__(
        self,
        home: Path,
        meeting: MeetingPlace,
        nodes: str,
        *arguments: object,
        max_restarts: int = 0,
        **environment: str,
    ):
        home.mkdir(exist_ok=True)
        self.home, self._log = home, home / "log.txt"
        launch = ["--nnodes", nodes, "--nproc-per-node", "1", "--max-restarts", str(max_restarts)]
        place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting.endpoint, "--rdzv-conf", _MEETING]
        agent = [*forked_python(), "-m", "torch.distributed.run", *launch, *place, "--local-addr", "127.0.0.1"]
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [
                    *agent,
                    "--monitor-interval",
                    "0.1",
                    "--no-python",
                    *forked_python(),
                    "-m",
                    "cli.ltrain",
                    *map(str, arguments),
                ],
                cwd=home,
                env={
                    **{name: value for name, value in os.environ.items() if name != "LTRAIN_CACHE"},
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUTF8": "1",
                    **environment,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait(self) -> int:
        return self.process.wait(TIME_LIMIT_S)

    def lose_power(self) -> None:
        """End agent and worker at once, without a word."""
        with suppress(psutil.NoSuchProcess):
            agent = psutil.Process(self.process.pid)
            for process in [agent, *agent.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait()
