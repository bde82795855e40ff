"""Ctrl-C once and twice, SIGTERM and SIGHUP at random moments of builds and gc.

Each run ends within five seconds with one line and no traceback, of itself or its workers; no process outlives it; and
the caches are as after a kill.
"""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from .build_bench import ServedBench, tallied
from .fork_server import END_WITHIN_S, Ended, Running, fork_server
from .tally import Report, Tally

_BEGUN_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Which signal comes, to whom, when, and whether it comes again.

    Attributes
    ----------
    moment
        Share of an undisturbed run, in [0, 1).
    again_after_s
        None where it comes once.
    """

    work: str
    n_jobs: int
    signal_name: str
    is_for_group: bool
    moment: float
    again_after_s: float | None

    def __str__(self) -> str:
        whom = "all processes" if self.is_for_group else "the process"
        again = "" if self.again_after_s is None else f" and again {self.again_after_s:.2f} s later"
        what = f"{self.work}, {self.n_jobs} jobs"
        return f"{self.signal_name} to {whom} of {what}, {self.moment:.3f} of the way{again}"


def draw_interrupt(seed: int) -> Interrupt:
    """The interrupt that a seed means."""
    draw = random.Random(seed)
    work = draw.choice(["first build", "rebuild", "rebuild", "gc"])
    n_jobs = 1 if work == "gc" else draw.choice([1, 2])
    name = draw.choice(["SIGINT", "SIGINT", "SIGTERM", "SIGHUP"])
    # A terminal tells all processes.
    is_for_group = name == "SIGINT" or draw.random() < 0.5
    again_after_s = draw.uniform(0, 0.5) if draw.random() < 0.4 else None
    return Interrupt(work, n_jobs, name, is_for_group, draw.random(), again_after_s)


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` interrupts; the one of each seed from `seed` on."""
    with fork_server(work_dir) as server:
        bench = ServedBench(work_dir, server)
        drawn = ((number, draw_interrupt(number)) for number in range(seed, seed + count))
        return tallied(((number, str(one), _try_interrupt(bench, one)) for number, one in drawn), report)


def _try_interrupt(bench: ServedBench, interrupt: Interrupt) -> list[str]:
    seconds = bench.length_s(interrupt.work, interrupt.n_jobs)
    running = bench.server.start(bench.prepare(interrupt.work, interrupt.n_jobs))
    if interrupt.work != "gc":
        _wait_until_begun(bench, running)
    time.sleep(interrupt.moment * seconds)
    interrupted_s = time.monotonic()
    _send(running, interrupt)
    if interrupt.again_after_s is not None:
        time.sleep(interrupt.again_after_s)
        _send(running, interrupt)
    ended = running.wait()
    took_s = time.monotonic() - interrupted_s
    problems = [f"it ended {took_s:.1f} s after the signal"] if took_s > END_WITHIN_S else []
    problems += [f"it left a process: {line}" for line in running.orphans()]
    return [*problems, *_badly_ended(interrupt, ended), *bench.wrong_afterwards(interrupt.work)]


def _wait_until_begun(bench: ServedBench, running: Running) -> None:
    """Until the command has said which source it takes: what comes before is Python's own start."""
    deadline = time.monotonic() + _BEGUN_WITHIN_S
    while not bench.server.has_written() and running.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)


def _send(running: Running, interrupt: Interrupt) -> None:
    number = signal.Signals[interrupt.signal_name]
    if interrupt.is_for_group:
        running.signal_group(number)
    else:
        running.signal_leader(number)


def _badly_ended(interrupt: Interrupt, ended: Ended) -> list[str]:
    """One line of its own, unless the work was done already; gc may be met before it can say anything."""
    number = signal.Signals[interrupt.signal_name]
    said = ended.error_lines
    if "Traceback" in ended.errors + ended.out or len(said) > 1:
        return [f"it wrote {said[-3:]}"]
    is_told = len(said) == 1 and said[0].startswith("Error: interrupted") and ended.code in (128 + number, -number)
    is_early = interrupt.work == "gc" and not said
    # Python gives the handlers back when it ends: a signal at that moment ends it as it does any program.
    is_done = not said and (ended.code == 0 or (ended.code == -number and ended.out))
    return [] if is_told or is_early or is_done else [f"ended with {ended.code}: {said}"]
