"""Who is measured when: every round gives each peer one turn, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.peer import Setting
from stream.peer_process import PeerFailedError, PeerProcess
from stream.registry import PeerEntry


@dataclass
class Throughput:
    """One peer's images per second.

    Attributes
    ----------
    first
        Of its first epoch, which opens files and starts workers.
    rounds
        Of the later turns, one a round.
    problem
        Why it was not measured, or in what its batches differ from the set.
    """

    entry: PeerEntry
    first: float | None = None
    rounds: list[float] = field(default_factory=list)
    problem: str | None = None

    @property
    def median(self) -> float | None:
        """Median of the rounds."""
        return statistics.median(self.rounds) if self.rounds else None

    def as_json(self) -> dict[str, Any]:
        """Everything, for the JSON file."""
        return {
            "title": self.entry.title,
            "kind": self.entry.kind,
            "images_per_s": self.median,
            "rounds_images_per_s": self.rounds,
            "first_epoch_images_per_s": self.first,
            "problem": self.problem,
        }


def measure(
    entries: Sequence[PeerEntry],
    setting: Setting,
    work: Path,
    *,
    repeats: int,
    min_seconds: float,
    say: Callable[[str], None],
) -> list[Throughput]:
    """Prepare, check and time peers.

    Parameters
    ----------
    entries
        Whom to measure, in the order of their turns.
    setting
        About what.
    work
        Folder for the peers' own formats.
    repeats
        Rounds.
    min_seconds
        A turn is as many whole epochs as this takes.
    say
        Takes one line for people.
    """
    results = [Throughput(entry) for entry in entries]
    processes: dict[str, PeerProcess] = {}
    try:
        for result in results:
            _start(result, processes, setting, work, say)
        for number in range(1, repeats + 1):
            say(f"round {number} of {repeats}")
            for result in results:
                if result.first is not None:
                    _take_turn(result, processes, min_seconds, say)
    finally:
        for process in processes.values():
            process.close()
    return results


def _start(
    result: Throughput, processes: dict[str, PeerProcess], setting: Setting, work: Path, say: Callable[[str], None]
) -> None:
    """Make a peer ready; leave out one that cannot be imported or run."""
    entry = result.entry
    key = entry.process or entry.name
    try:
        if key not in processes:
            processes[key] = PeerProcess(setting, work / key)
        processes[key].make(entry)
        result.first = processes[key].run_first(entry.name).images_per_s
        result.problem = processes[key].check(entry.name)
    except PeerFailedError as error:
        hint = f"; {entry.install}" if "ModuleNotFoundError" in str(error) or "ImportError" in str(error) else ""
        result.first, result.problem = None, str(error)
        say(f"{entry.name}: skipped ({error}){hint}")
        return
    note = f", but {result.problem}" if result.problem else ""
    say(f"{entry.name}: ready, first epoch {result.first:,.0f} images/s{note}")


def _take_turn(
    result: Throughput, processes: dict[str, PeerProcess], min_seconds: float, say: Callable[[str], None]
) -> None:
    entry = result.entry
    try:
        turn = processes[entry.process or entry.name].run_warm(entry.name, min_seconds)
    except PeerFailedError as error:
        result.first, result.problem = None, str(error)
        say(f"{entry.name}: given up ({error})")
        return
    result.rounds.append(turn.images_per_s)
