"""Peers in processes of their own, so that none can slow, crash or hang another.

A :class:`PeerProcess` is the parent's side: it sends an order, waits for the answer, and ends a process that takes too
long. What a peer prints goes to a log file beside its data.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from stream.peer import Peer, Setting
from stream.registry import PeerEntry

ORDER_TIMEOUT_S = 900.0


class PeerFailedError(Exception):
    """A peer cannot be measured; the message says why."""


@dataclass(frozen=True)
class Turn:
    """Whole epochs of one peer, run without a pause."""

    num_images: int
    num_epochs: int
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Throughput."""
        return self.num_images / self.seconds


class PeerProcess:
    """One process for the peers of one row or group of rows."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log_path = folder / "log.txt"
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        # Not a daemon: those may have no children, and DataLoaders do.
        self._process = context.Process(target=serve, args=(child_pipe, setting, folder, self._log_path))
        self._process.start()
        child_pipe.close()

    def make(self, entry: PeerEntry) -> None:
        """Import a peer and prepare its data, if it is not there yet."""
        self._order("make", entry)

    def check(self, name: str) -> str | None:
        """Compare one epoch with the set; None where it holds exactly the set's images, else how it differs."""
        answer: str | None = self._order("check", name)
        return answer

    def run_first(self, name: str) -> Turn:
        """Time the first epoch, which opens files and starts workers."""
        turn: Turn = self._order("run_first", name)
        return turn

    def run_warm(self, name: str, min_seconds: float) -> Turn:
        """Time whole epochs, after one that is not timed, until `min_seconds` have passed."""
        turn: Turn = self._order("run_warm", name, min_seconds)
        return turn

    def close(self) -> None:
        """End the process and whatever it started."""
        if self._process.is_alive():
            try:
                self._pipe.send(("close",))
                self._process.join(20)
            except OSError:
                pass
        end_tree(self._process.pid)
        self._process.join()

    def _order(self, *order: Any) -> Any:  # noqa: ANN401 - what the order gives
        try:
            self._pipe.send(order)
            if not self._pipe.poll(ORDER_TIMEOUT_S):
                end_tree(self._process.pid)
                raise PeerFailedError(f"{order[0]} took more than {ORDER_TIMEOUT_S:.0f} s")
        except (EOFError, OSError) as error:
            raise PeerFailedError(f"its process died; {self._log_path} may tell why") from error
        return receive_answer(self._pipe, self._log_path)


def receive_answer(pipe: Connection, log_path: Path) -> Any:  # noqa: ANN401 - what the order gives
    """Return the answer of a peer's process, or raise what it could not do."""
    try:
        is_good, answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise PeerFailedError(f"its process died; {log_path} may tell why") from error
    if not is_good:
        raise PeerFailedError(answer)
    return answer


def end_tree(pid: int | None) -> None:
    """End a process that this one started, and its children."""
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def serve(pipe: Connection, setting: Setting, folder: Path, log_path: Path) -> None:
    """Answer orders until told to close; runs in the peer's process."""
    log = log_path.open("a", encoding="utf-8", buffering=1)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log.fileno(), stream.fileno())
    torch.set_num_threads(1)
    server = Server(setting, folder)
    while True:
        try:
            order, *arguments = pipe.recv()
        except (EOFError, OSError):
            order, arguments = "close", []
        if order == "close":
            server.close()
            return
        try:
            pipe.send((True, getattr(server, order)(*arguments)))
        except Exception as error:  # whatever a foreign library raises is the answer
            traceback.print_exc()
            pipe.send((False, f"{type(error).__name__}: {error}".splitlines()[0][:300]))


def flush_to_disk(folder: Path) -> None:
    """Write out all files below a folder, so that no later turn shares the machine with the writing."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


class Server:
    """The peers of one process, and the orders they can be given."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self._setting = setting
        self._folder = folder
        self._peers: dict[str, Peer] = {}
        self._epochs: dict[str, int] = {}

    def make(self, entry: PeerEntry) -> None:
        """Import, create, prepare."""
        module = importlib.import_module(f"stream.{entry.module}")
        peer: Peer = getattr(module, entry.class_name)(self._setting, **entry.options)
        self._peers[entry.name] = peer
        self._epochs[entry.name] = 0
        data = self._data(entry.name)
        done = self._folder / f"{entry.name}.prepared"
        if not done.exists():
            data.mkdir(parents=True, exist_ok=True)
            labels = np.load(self._setting.labels_path)
            peer.prepare(np.load(self._setting.images_path, mmap_mode="r"), labels, data)
            flush_to_disk(data)
            done.touch()

    def check(self, name: str) -> str | None:
        """Compare the number of images of an epoch, and the sum of their pixels, with those of the set."""
        peer = self._peers[name]
        if not peer.delivers_the_set:
            return None
        num_images, total = 0, 0
        for images in peer.batches(self._data(name), self._setting.batch_size, self._next_epoch(name)):
            if images.dtype != torch.uint8:
                return f"batches are {images.dtype}"
            num_images += len(images)
            total += int(images.sum(dtype=torch.int64))
        if num_images != self._setting.num_images:
            return f"an epoch has {num_images} images, the set {self._setting.num_images}"
        expected = sum(int(part.sum(dtype=np.int64)) for part in self._parts())
        return None if total == expected else "its pixels are not those of the set"

    def run_first(self, name: str) -> Turn:
        """Time one epoch, opening included."""
        return self._timed(name, 0)

    def run_warm(self, name: str, min_seconds: float) -> Turn:
        """Bring the peer's files back into memory, which others have used since its last turn; then time."""
        self._run_epoch(name)
        return self._timed(name, min_seconds)

    def _timed(self, name: str, min_seconds: float) -> Turn:
        num_images, num_epochs, seconds = 0, 0, 0.0
        started = time.perf_counter()
        while num_epochs == 0 or seconds < min_seconds:
            num_images += self._run_epoch(name)
            num_epochs += 1
            seconds = time.perf_counter() - started
        return Turn(num_images, num_epochs, seconds)

    def _run_epoch(self, name: str) -> int:
        return self._peers[name].run_epoch(self._data(name), self._setting.batch_size, self._next_epoch(name))

    def close(self) -> None:
        """Close all peers."""
        for peer in self._peers.values():
            peer.close()

    def _data(self, name: str) -> Path:
        return self._folder / name

    def _next_epoch(self, name: str) -> int:
        self._epochs[name] += 1
        return self._epochs[name] - 1

    def _parts(self) -> list[Any]:
        images = np.load(self._setting.images_path, mmap_mode="r")
        return np.array_split(images, max(len(images) // 1024, 1))
