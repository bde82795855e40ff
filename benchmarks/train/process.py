"""A way to train in a process of its own, which is ended when it has shown enough."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stream.peer_process import end_tree, receive_answer

from train.peer import Epoch, PeerEntry, Setting, Steps, TrainPeer

START_TIMEOUT_S = 600.0


class TrainProcess:
    """The parent's side of one peer."""

    def __init__(self, entry: PeerEntry, setting: Setting, log_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._log_path = log_path
        self._pipe, child_pipe = context.Pipe()
        # Not a daemon: those may have no children, and DataLoaders do.
        self._process = context.Process(target=_serve, args=(child_pipe, entry, setting, log_path))
        self._process.start()
        child_pipe.close()
        self._receive(START_TIMEOUT_S)

    def steps(self, num_steps: int) -> Steps:
        """Time some steps."""
        self._pipe.send(("steps", num_steps))
        steps: Steps = self._receive(START_TIMEOUT_S)
        return steps

    def epochs(self, seed: int, cap_s: float) -> Iterator[Epoch]:
        """Yield the epochs of a training; it ends by itself, or when the next epoch would take longer than the cap."""
        self._pipe.send(("train", seed))
        ends_s = time.monotonic() + cap_s
        while True:
            epoch = self._receive(ends_s - time.monotonic())
            if epoch is None:
                return
            yield epoch

    def close(self) -> None:
        """End the process and whatever it started."""
        end_tree(self._process.pid)
        self._process.join()

    def _receive(self, timeout_s: float) -> Any:  # noqa: ANN401 - what the order gives
        """Return the next answer; None after the time."""
        return receive_answer(self._pipe, self._log_path) if self._pipe.poll(max(timeout_s, 0)) else None


def _serve(pipe: Connection, entry: PeerEntry, setting: Setting, log_path: Path) -> None:
    with log_path.open("a", encoding="utf-8", buffering=1) as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    try:
        module = importlib.import_module(f"train.{entry.module}")
        peer: TrainPeer = getattr(module, entry.class_name)(setting, **entry.options)
        pipe.send((True, None))
        while True:
            order, argument = pipe.recv()
            if order == "steps":
                pipe.send((True, peer.steps(argument)))
            else:
                peer.train(argument, lambda epoch: pipe.send((True, epoch)))
                pipe.send((True, None))
    except Exception as error:  # whatever a foreign library raises is the answer
        traceback.print_exc()
        pipe.send((False, f"{type(error).__name__}: {error}".splitlines()[0][:300]))
