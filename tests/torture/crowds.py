"""Several builds and gc of one cache at once, some of them killed, beside a reader that was there before.

No two wait for each other for ever; who leaves says why, and who waits ends well; the reader keeps its snapshot; and
the caches are as after a single build.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leukemia_data.caches.cache import Cache, open_cache

from .build_bench import ServedBench, tallied
from .fork_server import Ended, ForkServer, fork_server
from .tally import Report, Tally

_MOST_MEMBERS = 3
_IS_BUSY = "is in use by another process"


@dataclass(frozen=True, slots=True)
class Member:
    """One command of a crowd.

    Attributes
    ----------
    command
        ``build``, ``build --wait`` or ``gc``.
    is_reversed
        Whether a build names its sizes the other way round.
    begins, killed
        When, in lengths of an undisturbed build; None where it is not killed.
    """

    command: str
    is_reversed: bool
    begins: float
    killed: float | None

    def __str__(self) -> str:
        killed = "" if self.killed is None else f", killed at {self.killed:.2f}"
        return f"{self.command}{' (reversed)' if self.is_reversed else ''} at {self.begins:.2f}{killed}"


def draw_crowd(seed: int) -> tuple[str, list[Member]]:
    """The crowd that a seed means, and what it does: ``first build`` or ``rebuild``."""
    draw = random.Random(seed)
    work = draw.choice(["first build", "rebuild"])
    members = []
    for number in range(draw.randint(2, _MOST_MEMBERS)):
        command = draw.choice(["build", "build --wait", "gc", "gc"]) if number else "build --wait"
        begins = draw.uniform(0.2, 0.9) if number else 0.0
        killed = begins + draw.random() if draw.random() < 0.3 else None
        members.append(Member(command, draw.random() < 0.5 and command != "gc", begins, killed))
    return work, members


def run(work_dir: Path, seed: int, count: int, report: Report, *, num_images: int = 300) -> Tally:
    """Try `count` crowds on a source of so many images; the one of each seed from `seed` on."""
    crowds = [(number, *draw_crowd(number)) for number in range(seed, seed + count)]
    num_servers = max((len(members) for _, _, members in crowds), default=1)
    with ExitStack() as stack:
        folders = [work_dir / f"server-{number}" for number in range(num_servers)]
        servers = [stack.enter_context(fork_server(folder)) for folder in folders]
        bench = ServedBench(work_dir, servers[0], num_images=num_images)
        return tallied(
            (
                (number, f"{work}: {'; '.join(map(str, members))}", _try_crowd(bench, servers, work, members))
                for number, work, members in crowds
            ),
            report,
        )


def _try_crowd(bench: ServedBench, servers: Sequence[ForkServer], work: str, members: Sequence[Member]) -> list[str]:
    """Let it loose, and tell what did not survive."""
    seconds = bench.length_s(work, 1)
    arguments = bench.prepare(work)
    opened = [open_cache(path.parent) for path in sorted(bench.cache.rglob("manifest.json"))]
    before = _read_all(opened)
    ended = _let_loose(servers, arguments, members, seconds)
    problems = [
        f"{member}: {problem}"
        for member, result in zip(members, ended, strict=True)
        for problem in _ended_wrongly(member, result)
    ]
    if _read_all(opened) != before:
        problems.append("a reader that was there before sees other pixels")
    return [*problems, *bench.wrong_afterwards(work)]


def _let_loose(
    servers: Sequence[ForkServer], arguments: list[str], members: Sequence[Member], seconds: float
) -> list[Ended]:
    """Start and kill each at its time; wait for all."""
    running = {}
    moments = [(member.begins, False, number) for number, member in enumerate(members)]
    moments += [(member.killed, True, number) for number, member in enumerate(members) if member.killed is not None]
    started_s = time.monotonic()
    for moment, is_kill, number in sorted(moments):
        time.sleep(max(started_s + moment * seconds - time.monotonic(), 0))
        if is_kill:
            running[number].signal_group(signal.SIGKILL)
        else:
            running[number] = servers[number].start(_words(members[number], arguments))
    return [running[number].wait() for number in range(len(members))]


def _words(member: Member, arguments: list[str]) -> list[str]:
    """The member's command line, made of that of a build."""
    if member.command == "gc":
        return ["gc", "--cache", arguments[arguments.index("--cache") + 1]]
    words = list(arguments)
    if member.is_reversed:
        first, second = (place + 1 for place, word in enumerate(words) if word == "--size")
        words[first], words[second] = words[second], words[first]
    return [*words, "--wait"] if member.command == "build --wait" else words


def _ended_wrongly(member: Member, ended: Ended) -> list[str]:
    if "Traceback" in ended.errors:
        return [f"traceback: {ended.errors[-500:]}"]
    if member.killed is not None and ended.code == -signal.SIGKILL:
        return []
    has_left = member.command == "build" and ended.code == 1 and _IS_BUSY in ended.errors
    return [] if ended.code == 0 or has_left else [f"ended with {ended.code}: {ended.errors[-300:]}"]


def _read_all(opened: Sequence[Cache]) -> list[bytes]:
    return [cache.reader.gather(np.arange(len(cache))).tobytes() for cache in opened]
