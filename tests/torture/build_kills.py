"""SIGKILL at random moments of builds and gc: their own process, a worker, or all of them at once.

After each kill no cache that opens is wrong, the earlier cache is still there, nothing of the run outlives it by five
seconds, the next build completes with the bytes of an undisturbed one, and gc leaves nothing over.
"""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from .build_bench import ServedBench, tallied
from .fork_server import END_WITHIN_S, Ended, Running, fork_server
from .tally import Report, Tally

_MAX_TRIES = 12


@dataclass(frozen=True, slots=True)
class Kill:
    """What is killed, and when.

    Attributes
    ----------
    work
        ``first build``, ``rebuild`` or ``gc``.
    n_jobs
        1 runs in one process.
    victim
        ``process`` (the command's own), ``worker`` or ``group``.
    is_exact
        Whether `moment` means a call that reaches the disk rather than a time.
    moment
        Share of an undisturbed run, in [0, 1).
    """

    work: str
    n_jobs: int
    victim: str
    is_exact: bool
    moment: float

    def __str__(self) -> str:
        how = "at a call to the disk" if self.is_exact else "at a time"
        return f"{self.victim} of {self.work}, {self.n_jobs} jobs, {how}, {self.moment:.3f} of the way"


def draw_kill(seed: int) -> Kill:
    """The kill that a seed means."""
    draw = random.Random(seed)
    work = draw.choice(["first build", "first build", "rebuild", "rebuild", "gc"])
    n_jobs = 2 if work != "gc" and draw.random() < 0.4 else 1
    victim = draw.choice(["process", "worker", "group"]) if n_jobs == 2 else "process"
    return Kill(work, n_jobs, victim, n_jobs == 1 and draw.random() < 0.5, draw.random())


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` kills; the one of each seed from `seed` on."""
    with fork_server(work_dir) as server:
        bench = ServedBench(work_dir, server)
        kills = ((number, draw_kill(number)) for number in range(seed, seed + count))
        return tallied(((number, str(kill), _try_kill(bench, kill)) for number, kill in kills), report)


def _try_kill(bench: ServedBench, kill: Kill) -> list[str]:
    """Make it, and tell what did not survive. A run that was faster than the kill is run again."""
    moment = kill.moment
    for _ in range(_MAX_TRIES):
        if kill.is_exact:
            ended, is_hit, problems = _disturb_call(bench, kill, moment)
        else:
            ended, is_hit, problems = _disturb_time(bench, kill, moment)
        if is_hit or problems:
            return [*problems, *_ended_wrongly(kill, ended), *bench.wrong_afterwards(kill.work)]
        moment *= 0.7
    return [f"no kill in {_MAX_TRIES} tries"]


def _disturb_call(bench: ServedBench, kill: Kill, moment: float) -> tuple[Ended, bool, list[str]]:
    """How the run ended, whether the kill met it, and what outlived it."""
    kill_at = 1 + int(moment * bench.num_calls(kill.work))
    ended = bench.server.run(bench.prepare(kill.work), kill_at=kill_at, below=bench.cache)
    return ended, ended.code == -signal.SIGKILL, []


def _disturb_time(bench: ServedBench, kill: Kill, moment: float) -> tuple[Ended, bool, list[str]]:
    seconds = bench.length_s(kill.work, kill.n_jobs)
    running = bench.server.start(bench.prepare(kill.work, kill.n_jobs))
    time.sleep(moment * seconds)
    is_hit = _kill(running, kill.victim)
    killed_s = time.monotonic()
    ended = running.wait()
    took_s = time.monotonic() - killed_s
    problems = [f"it ended {took_s:.1f} s after the kill"] if is_hit and took_s > END_WITHIN_S else []
    problems += [f"it left a process: {line}" for line in running.orphans()]
    if not is_hit:
        bench.was_faster(kill.work, kill.n_jobs, ended.seconds)
    return ended, is_hit, problems


def _ended_wrongly(kill: Kill, ended: Ended) -> list[str]:
    """A run that lost a worker has to say so in one line; a killed one says nothing."""
    if kill.victim != "worker":
        return [f"it wrote {line!r}" for line in ended.error_lines[:3]]
    said = ended.error_lines
    is_told = ended.code == 1 and len(said) == 1 and said[0].startswith("Error: a worker process died")
    return [] if is_told or (ended.code == 0 and not said) else [f"ended with {ended.code}: {said[-3:]}"]


def _kill(running: Running, victim: str) -> bool:
    """Kill what is meant, once it is there; False where the run ended before."""
    while running.is_alive():
        if victim == "group":
            running.signal_group(signal.SIGKILL)
            return True
        if victim == "process":
            running.signal_leader(signal.SIGKILL)
            return True
        for worker in running.workers():
            try:
                worker.kill()
                return True
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.002)
    return False
