"""What a block of code takes: seconds, and memory of this process that nothing but it holds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_STATUS = Path("/proc/self/status")
_LOOK_EVERY_S = 0.01


class Meter:
    """Measures its block. Pages of mapped files do not count where the system tells them apart (Linux).

    Attributes
    ----------
    seconds, cpu_seconds
        What the block took: by the clock, and of the processor, which tells how busy the machine was beside.
    peak_bytes, kept_bytes
        Memory above that at its start: the most there was, and what was left at its end.
    """

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._before = self._most = private_bytes()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_seconds = time.process_time() - self._cpu_started
        now = private_bytes()
        self._ended.set()
        self._thread.join()
        self.peak_bytes, self.kept_bytes = max(self._most, now) - self._before, now - self._before

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            self._most = max(self._most, private_bytes())


def private_bytes() -> int:
    """Memory of this process that is no file's."""
    if not _STATUS.exists():
        return int(psutil.Process().memory_info().rss)
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0
