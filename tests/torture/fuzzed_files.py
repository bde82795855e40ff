"""Hostile files: every kind of file that the programs read, mutated, and given to its readers.

Lost is whatever is no refusal by one of the project's errors and no answer that holds together: another exception, a
crash, a hang, too much memory. Children that are forked read the files, so that a crash ends none but them.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import torch

from leukemia_data.errors import LeukemiaError

from .fuzz_children import run_trials
from .fuzz_kind import FileKind
from .fuzz_kinds import file_kinds
from .fuzz_places import make_places
from .tally import Report, Tally


def run(work_dir: Path, seed: int, count: int, report: Report) -> Tally:
    """Try `count` mutated files; the file of a seed is always the same.

    Parameters
    ----------
    work_dir
        An empty folder.
    seed, count
        The first seed, and how many.
    report
        Called with what was tried and what came of it.
    """
    kinds = prepared_kinds(work_dir)
    lost: list[str] = []
    for number, wrong in run_trials(partial(tried, kinds), range(seed, seed + count)):
        kind = chosen_kind(kinds, number)
        report(kind.name, wrong or "survived")
        if wrong:
            lost.append(f"seed {number}: {kind.name}: {wrong}")
    return Tally(count, count - len(lost), tuple(lost))


def prepared_kinds(work_dir: Path) -> list[FileKind]:
    """Return all kinds of files, with sound ones below an empty folder, in a process that can be forked."""
    # Threads do not survive a fork, and whoever waits for them would wait for ever.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return file_kinds(make_places(work_dir))


def chosen_kind(kinds: Sequence[FileKind], seed: int) -> FileKind:
    """Return the kind of file that a seed stands for."""
    return random.Random(f"{seed} kind").choices(kinds, [kind.share for kind in kinds])[0]


def mutated_file(kind: FileKind, seed: int) -> bytes:
    """Return the bytes that a seed stands for."""
    return kind.mutate(random.Random(f"{seed}"), kind.seeds)


def tried(kinds: Sequence[FileKind], seed: int) -> str:
    """Read the file of a seed; return what went wrong, or nothing."""
    kind = chosen_kind(kinds, seed)
    data = mutated_file(kind, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kind.read(data)
        except LeukemiaError as error:
            return "" if str(error).strip() else "an error without a message"
    return ""
