"""Errors of the disk at each call that reaches it: every one of a build, a rebuild, gc and the commands that read.

The command runs in this process, with functions that fail in place of the system's. A seed is a place in a fixed list
of all faults, so that as many of them as the list is long try each call with each error once.

After each the message is one line without a traceback, no cache that opens is wrong, the next build completes with the
bytes of an undisturbed one, and gc leaves nothing over.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from cli.ldata import main
from leukemia_data.building import plan

from .build_bench import BuildBench, tallied
from .build_ground import SIZES
from .faulty_files import Fault, FaultyFiles
from .tally import Report, Tally

_ERRORS = {
    "open": (errno.EACCES, errno.EMFILE),
    "read": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.EIO,),
    "rename": (errno.EIO, errno.EACCES),
    "remove": (errno.EACCES,),
    "make folder": (errno.ENOSPC,),
    "stat": (errno.EIO,),
    "list": (errno.EIO,),
    "hdf5": (errno.ENOSPC, errno.EIO),
}
_READING = ("verify", "stats", "info")
_WORKS = ("first build", "rebuild", "gc", *_READING)
_NUM_IMAGES = 24
_SHARD_CAPACITY = 8


@dataclass(frozen=True, slots=True)
class DiskFault:
    """One error of the disk.

    Attributes
    ----------
    work
        Which command meets it.
    kind, number
        The how manieth call of which kind, from 1.
    error
        Number of the error.
    is_lasting
        Whether all later calls of the kind fail too.
    """

    work: str
    kind: str
    number: int
    error: int
    is_lasting: bool

    def __str__(self) -> str:
        lasting = " and all later ones" if self.is_lasting else ""
        return f"{errno.errorcode[self.error]} at {self.kind} {self.number}{lasting} of {self.work}"


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` faults of the list from place `seed` on, and from its beginning again after its end."""
    bench = BuildBench(work_dir, run_ldata, num_images=_NUM_IMAGES)
    faults = all_faults(bench, work_dir)
    chosen = ((number, faults[number % len(faults)]) for number in range(seed, seed + count))
    return tallied(((number, str(fault), _try_fault(bench, work_dir, fault)) for number, fault in chosen), report)


def all_faults(bench: BuildBench, root: Path) -> list[DiskFault]:
    """Every call of every work below a folder with every error, in an order that mixes them and is always the same."""
    found = [
        DiskFault(work, kind, number, error, is_lasting)
        for work in _WORKS
        for kind, calls in sorted(_calls(bench, root, work).items())
        for number in range(1, calls + 1)
        for error in _ERRORS[kind]
        for is_lasting in (False, True)
    ]
    random.Random(0).shuffle(found)
    return found


def _try_fault(bench: BuildBench, root: Path, fault: DiskFault) -> list[str]:
    """Make it, and tell what did not survive."""

    def fail(path: str | None) -> None:
        raise OSError(fault.error, os.strerror(fault.error), path)

    arguments = _prepare(bench, fault.work)
    with FaultyFiles(root, Fault(fault.number, fail, fault.kind, fault.is_lasting)) as files:
        code, errors = run_ldata(arguments)
    problems = badly_told(code, errors)
    if files.num_faults == 0:
        problems.append("the call was not made")
    return [*problems, *bench.wrong_afterwards(fault.work)]


def _prepare(bench: BuildBench, work: str) -> list[str]:
    if work in _READING:
        bench.prepare("rebuild")
        return [work, "--cache", str(bench.cache), "--size", str(SIZES[0])]
    return bench.prepare(work)


def _calls(bench: BuildBench, root: Path, work: str) -> dict[str, int]:
    """Calls of an undisturbed run by their kind."""
    arguments = _prepare(bench, work)
    with FaultyFiles(root) as files:
        code, errors = run_ldata(arguments)
    if code != 0:
        raise RuntimeError(f"the undisturbed run failed: {errors}")
    return {kind: number for kind, number in files.counts.items() if kind is not None}


def run_ldata(arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command in this process with small shards: its exit code, and what it wrote on stderr."""
    errors = io.StringIO()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
        patch.object(plan, "default_capacity", lambda _: _SHARD_CAPACITY),
    ):
        try:
            main(list(arguments), prog_name="ldata")
        except SystemExit as ended:
            return int(ended.code or 0), errors.getvalue()
        except Exception as error:
            # What comes through here would be a traceback.
            return 99, f"{errors.getvalue()}Traceback: {type(error).__name__}: {error}"
    return 0, errors.getvalue()


def badly_told(code: int, errors: str) -> list[str]:
    """A failed command says why in a line of its own; one that got by without the call may succeed."""
    lines = [line for line in errors.splitlines() if not line.startswith(("source: ", "note: ", "passed over: ", "  "))]
    if "Traceback" in errors or code not in (0, 1):
        return [f"ended with {code}: {errors[-300:]}"]
    is_told = not lines if code == 0 else len(lines) == 1 and lines[0].startswith("Error: ")
    return [] if is_told else [f"ended with {code} and {len(lines)} lines: {lines[:3]}"]
