"""Stages the shards that a reader touched, by threads in the background.

The threads begin with the first wish and end when there is none left, so that nothing runs beside a training whose
shards are all here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from leukemia_data.caches.manifest_entries import ShardEntry
from leukemia_data.remote.staging import Fetched, Stage
from leukemia_data.storage.object_store import ObjectStore

_NUM_THREADS = 4
_AGAIN_AFTER_S = 0.1
_THREAD_NAME = "shard-stager"


class ShardStager:
    """Fetches shards into a stage, each at most once.

    Parameters
    ----------
    stage, store
        Where to, and where from.
    shards
        The cache's shards; wishes are numbers of them.
    keep
        Names of staged files that may not go to make room.
    on_arrival
        Called in a thread with the number of each shard that is staged now.
    """

    def __init__(
        self,
        stage: Stage,
        store: ObjectStore,
        shards: Sequence[ShardEntry],
        keep: frozenset[str],
        on_arrival: Callable[[int], object],
    ) -> None:
        self._stage, self._store, self._shards, self._on_arrival = stage, store, shards, on_arrival
        self._keep = keep
        self._changed = threading.Condition()
        self._wanted: deque[int] = deque()
        self._settled: set[int] = set()
        self._asked: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._error: BaseException | None = None
        self._started_s: float | None = None
        self.num_bytes = 0
        self.seconds = 0.0
        """From the first wish to the last arrival."""

    def want(self, numbers: Iterable[int], *, first: bool = False) -> None:
        """Wish for shards, before all earlier wishes or behind them; returns at once.

        Raises
        ------
        BaseException
            What stopped a thread since the last call.
        """
        with self._changed:
            self._raise_error()
            new = [number for number in numbers if number not in self._asked]
            if not new or self._is_closed:
                return
            self._started_s = time.perf_counter() if self._started_s is None else self._started_s
            self._asked.update(new)
            if first:
                self._wanted.extendleft(reversed(new))
            else:
                self._wanted.extend(new)
            self._begin_threads()

    def wait(self, numbers: Iterable[int]) -> None:
        """Wait until wishes are settled: the shards are staged, or it is known that they will not be."""
        wanted = set(numbers)
        with self._changed:
            while not (wanted <= self._settled or self._is_closed or self._error is not None):
                self._changed.wait()
            self._raise_error()

    def forget(self, number: int) -> None:
        """Let a shard be wished for once more: its staged file turned out to be no good."""
        with self._changed:
            self._asked.discard(number)
            self._settled.discard(number)

    def stop(self) -> None:
        """Drop all wishes; threads end with the shard that they are at. Without a lock: a finalizer may call it."""
        self._is_closed = True
        self._wanted.clear()

    def close(self) -> None:
        """Drop all wishes, and wait for the threads to end."""
        self.stop()
        with self._changed:
            self._changed.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _begin_threads(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < min(_NUM_THREADS, len(self._wanted)):
            # A daemon: an interrupted program shall not wait for a network that hangs.
            thread = threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        try:
            while (number := self._next()) is not None:
                self._settle(number, self._stage.fetch(self._store, self._shards[number], self._keep))
        except BaseException as error:
            # Whoever reads batches gets it.
            with self._changed:
                self._error = error
                self._wanted.clear()
                self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            if self._wanted:
                return self._wanted.popleft()
            # Under the lock: a wish that comes now must find that this thread is none any more.
            self._threads = [thread for thread in self._threads if thread is not threading.current_thread()]
            return None

    def _settle(self, number: int, fetched: Fetched) -> None:
        if fetched is Fetched.BUSY:
            time.sleep(_AGAIN_AFTER_S)
            with self._changed:
                if not self._is_closed:
                    self._wanted.append(number)
            return
        if fetched is Fetched.HERE:
            self._on_arrival(number)
        with self._changed:
            self._settled.add(number)
            if fetched is Fetched.HERE:
                self.num_bytes += self._shards[number].num_bytes
                self.seconds = time.perf_counter() - (self._started_s or 0.0)
            else:
                self._give_up(self._shards[number].num_bytes)
            self._changed.notify_all()

    def _give_up(self, num_bytes: int) -> None:
        """Settle the wishes that wait for files of a size for which there is no room: each would look at all files."""
        hopeless = {number for number in self._wanted if self._shards[number].num_bytes >= num_bytes}
        self._settled |= hopeless
        self._wanted = deque(number for number in self._wanted if number not in hopeless)
