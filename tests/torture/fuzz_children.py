"""Run many small trials in forked children: a crash, a hang or a greedy trial ends its child, and is told by number.

A child tells its parent before and after every trial. Each trial has a few seconds of computing, after which the system
ends the child; and the child may not take much more memory than it was born with.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import psutil

Trial = Callable[[int], str]
"""A number in, what went wrong out; empty where nothing did."""

BATCH = 250
COMPUTING_S = 10.0
SILENCE_S = 120.0
"""Wall clock, for trials that wait for ever; other programs on the machine must not look like one."""
MORE_MEMORY_BYTES = 1 << 30


def run_trials(trial: Trial, numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Yield each number with what went wrong in its trial; empty where nothing did."""
    rest = numbers
    while rest:
        answered = 0
        for number, lost in _one_child(trial, rest[:BATCH]):
            answered += 1
            yield number, lost
        rest = rest[answered:]


def _one_child(trial: Trial, numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Yield the answers of one child; its last one is the parent's, if it ended before its time."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(trial, numbers, sender), daemon=True)
    with warnings.catch_warnings():
        # Python warns of other threads: those of pytest hold no lock that a trial needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    sender.close()
    try:
        for number in numbers:
            if not receiver.poll(SILENCE_S):
                child.kill()
                yield number, f"no answer for {SILENCE_S:.0f} s"
                return
            try:
                yield number, receiver.recv()
            except EOFError:
                child.join()
                yield number, _ending(child.exitcode)
                return
    finally:
        child.kill()
        child.join()
        receiver.close()


def _ending(exitcode: int | None) -> str:
    if exitcode == -signal.SIGPROF:
        return f"computed for more than {COMPUTING_S:.0f} s"
    name = f" ({signal.Signals(-exitcode).name})" if exitcode and exitcode < 0 else ""
    return f"the process ended with code {exitcode}{name}"


def _work(trial: Trial, numbers: Sequence[int], sender: Connection) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # The parent tells of a crash; pytest's own handler would fill the screen.
    faulthandler.disable()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    limit = psutil.Process().memory_info().vms + MORE_MEMORY_BYTES
    if hasattr(resource, "RLIMIT_AS"):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, COMPUTING_S)
        try:
            lost = trial(number)
        except Exception:
            lost = traceback.format_exc(limit=-4)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sender.send(lost)
