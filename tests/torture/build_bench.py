"""Builds, rebuilds and gc on prepared ground, to be disturbed one after the other, and the checks after each."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from .build_ground import BuildGround, RunLdata, left_after_gc, make_ground, wrong_caches
from .fork_server import ForkServer
from .tally import Report, Tally

# So many calls into a rebuild it has written shards and receipts, and no manifest yet.
_MANY_CALLS = 150


class BuildBench:
    """The ground, and a cache folder that each work begins with anew.

    Parameters
    ----------
    folder
        Everything lies here.
    run
        Runs ``ldata`` undisturbed.
    num_images
        In the source's first state.
    cache
        Where the disturbed cache lies; None means in `folder`.
    """

    def __init__(self, folder: Path, run: RunLdata, *, num_images: int = 300, cache: Path | None = None) -> None:
        self.run = run
        self.cache = cache or folder / "cache"
        self.ground: BuildGround = make_ground(folder, run, num_images)
        self._littered = folder / "littered"

    def prepare(self, work: str, n_jobs: int = 1) -> list[str]:
        """Lay out the cache folder as it is before ``first build``, ``rebuild`` or ``gc``; return the command."""
        ground = self.ground
        if work == "gc":
            shutil.rmtree(self.cache, ignore_errors=True)
            shutil.copytree(self._littered_cache(), self.cache)
            return ["gc", "--cache", str(self.cache)]
        ground.fresh_cache(self.cache, with_first=work != "first build")
        return ground.arguments(ground.first if work == "first build" else ground.second, self.cache, n_jobs)

    def wrong_afterwards(self, work: str) -> list[str]:
        """What is wrong once the disturbance is over: with the caches, the next build, or what gc leaves."""
        ground = self.ground
        is_first = work == "first build"
        allowed = [ground.first_files] if is_first else [ground.first_files, ground.second_files]
        problems = wrong_caches(self.cache, allowed, must_open=not is_first)
        source, wanted = (ground.first, ground.first_files) if is_first else (ground.second, ground.second_files)
        code, errors = self.run(ground.arguments(source, self.cache))
        if code != 0:
            return [*problems, f"the next build failed: {errors[-300:]}"]
        return [*problems, *left_after_gc(self.cache, wanted)]

    def _littered_cache(self) -> Path:
        """A cache with what a rebuild leaves over."""
        if not self._littered.exists():
            self.ground.fresh_cache(self._littered, with_first=True)
            self.run(self.ground.arguments(self.ground.second, self._littered))
        return self._littered


class ServedBench(BuildBench):
    """A bench whose runs come from a fork server: with lengths of undisturbed runs, in time and in calls."""

    def __init__(self, folder: Path, server: ForkServer, *, num_images: int = 300, cache: Path | None = None) -> None:
        super().__init__(folder, server.code_and_errors, num_images=num_images, cache=cache)
        self.server = server
        self._seconds: dict[tuple[str, int], float] = {}
        self._calls: dict[str, int] = {}

    def length_s(self, work: str, n_jobs: int) -> float:
        """Seconds that the work takes undisturbed. The cache is prepared for it afterwards."""
        if (work, n_jobs) not in self._seconds:
            self._seconds[work, n_jobs] = self.server.run(self.prepare(work, n_jobs)).seconds
            self.prepare(work, n_jobs)
        return self._seconds[work, n_jobs]

    def was_faster(self, work: str, n_jobs: int, seconds: float) -> None:
        """Learn that the work took less: machines are not equally busy at all times."""
        self._seconds[work, n_jobs] = min(self._seconds[work, n_jobs], seconds)

    def num_calls(self, work: str) -> int:
        """Calls of the work that reach the disk. The cache is prepared for it afterwards."""
        if work not in self._calls:
            told = self.cache.with_name("calls")
            ended = self.server.run(self.prepare(work), count_into=told, below=self.cache)
            if ended.code != 0:
                raise RuntimeError(f"the undisturbed run failed: {ended.errors}")
            self._calls[work] = int(told.read_text(encoding="ascii"))
            self.prepare(work)
        return self._calls[work]

    def _littered_cache(self) -> Path:
        """With what a killed rebuild leaves besides."""
        if not self._littered.exists():
            super()._littered_cache()
            arguments = self.ground.arguments(self.ground.first, self._littered)
            self.server.run(arguments, kill_at=_MANY_CALLS, below=self._littered)
        return self._littered


def tallied(results: Iterable[tuple[int, str, list[str]]], report: Report) -> Tally:
    """Report each fault as it is done, and add them up.

    Parameters
    ----------
    results
        Seed, description and problems of each fault.
    report
        Told of each.
    """
    tally = Tally()
    for seed, fault, problems in results:
        report(fault, "; ".join(problems) or "survived")
        lost = (f"seed {seed}: {fault}: {'; '.join(problems)}",) if problems else ()
        tally += Tally(1, int(not problems), lost)
    return tally
