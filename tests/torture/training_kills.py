"""Kill tiny trainings, go on with them, kill them again: nothing that is left is broken, and the end is the same.

Three kinds of training are killed in turn: a run that keeps an average of its weights, a plan of two stages, and a
cross-validation of two folds. A process dies at a random moment, at one of its file operations, or with some of a
file's bytes written. After each death every file that bears its name must be whole, and the last checkpoint at most one
step old; the training goes on from there, and after a few deaths it is left alone. What it comes to must be, bit for
bit, what an undisturbed process came to.

The commands run in forked processes, as they are on the command line; only figures are left blank.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

# torch's optimizers load this when the first one is made, which takes longer than a whole trial.
import torch._dynamo
from matplotlib.figure import Figure

import cli.ldata
import cli.ltrain

# Loaded here and not by the command, so that no process has to do it again.
from leukemia_data.sources.sample_set import write_sample
from leukemia_models.reports import style as figure_style
from leukemia_models.runs.recorder import Recorder
from leukemia_models.runs.run_folder import PLAN_FILE_NAME, RunFolder, is_kfold
from leukemia_models.training.checkpoint import load_checkpoint

from .forked import Ending, Forked
from .run_check import broken_files, differences
from .tally import Tally

Report = Callable[[str, str], None]
AT_MOST_S = 120.0
KILLS_PER_TRAINING = 12
_SHARED = ("--batch-size", "4", "--device", "cpu", "--num-threads", "1", "--save-minutes", "0")
_PLAN = """\
model = "resnet18-narrow"

[defaults]
recipe = "raw"
batch_size = 4

[[stage]]
name = "small"
size = 32
epochs = 2

[[stage]]
name = "large"
size = 48
epochs = 1
start = "best:small"
"""
_NARROW = ("--model", "resnet18-narrow", "--size", "32", "--recipe", "raw")
_KINDS: dict[str, tuple[str, ...]] = {
    "run": (*_NARROW, *_SHARED, "--epochs", "2", "--optimizer", "adamw", "--ema", "0.9"),
    "plan": ("--plan", "two-stages.toml", *_SHARED[2:]),
    "kfold": ("kfold", "--folds", "2", *_NARROW, *_SHARED, "--epochs", "1"),
}


@dataclass(frozen=True, slots=True)
class Death:
    """How a process is to die: after some seconds, or at one of its file operations, or some bytes after that."""

    after_s: float | None = None
    at_operation: int | None = None
    after_bytes: int | None = None

    def __str__(self) -> str:
        if self.after_s is not None:
            return f"killed after {self.after_s:.3f} s"
        return f"killed at file operation {self.at_operation}" + (
            "" if self.after_bytes is None else f", with {self.after_bytes:,} bytes of a file written"
        )


@dataclass(frozen=True, slots=True)
class Training:
    """A training and its undisturbed twin."""

    kind: str
    work_dir: Path
    seconds: float

    @property
    def out(self) -> Path:
        """Folder of the one that is killed."""
        return self.work_dir / f"killed-{self.kind}"

    @property
    def expected(self) -> Path:
        """Folder of the other one."""
        return self.work_dir / f"whole-{self.kind}"

    @property
    def steps_log(self) -> Path:
        """Every step that a process of it took."""
        return self.work_dir / f"{self.kind}-steps.txt"


def run(work_dir: Path, seed: int, count: int, report: Report, kinds: Sequence[str] = tuple(_KINDS)) -> Tally:
    """Kill trainings `count` times.

    Parameters
    ----------
    work_dir : Path
        Empty; takes a tiny cache and the runs.
    seed : int
        Decides how each process dies.
    count : int
        Kills, at least 1.
    report : callable
        Is told of every training: what was done to it, and what came of it.
    kinds : sequence of str
        Of ``run``, ``plan`` and ``kfold``: what is trained, in turn.
    """
    chance, tally = random.Random(seed), Tally()
    torch.set_num_threads(1)
    _make_caches(work_dir)
    trainings: dict[str, Training] = {}
    for number in range(count):
        if tally.tried >= count:
            break
        kind = kinds[number % len(kinds)]
        if kind not in trainings:
            trainings[kind] = _undisturbed(kind, work_dir)
        found = _kill_and_resume(trainings[kind], chance, min(KILLS_PER_TRAINING, count - tally.tried))
        report(f"{found.tried} kills of a {kind}", "; ".join(found.lost) or "the same bits as undisturbed")
        tally += found
    return tally


def _make_caches(work_dir: Path) -> None:
    (work_dir / "two-stages.toml").write_text(_PLAN, encoding="utf-8")
    cells = work_dir / "cells"
    sizes = ("--size", "32", "--size", "48", "--recipe", "raw", "--n-jobs", "1")

    def build() -> None:
        write_sample(cells, num_subjects=8, cells_per_subject=3, seed=0)
        cli.ldata.main(["build", str(cells), *sizes, "--cache", str(work_dir / "cache")], prog_name="ldata")

    ending = Forked(build, work_dir / "build.log").ending(None, AT_MOST_S)
    if ending.exit_code != 0:
        raise RuntimeError(f"the cache of the trial could not be built: {ending.output}")


def _undisturbed(kind: str, work_dir: Path) -> Training:
    training, started_s = Training(kind, work_dir, 0.0), time.monotonic()
    ending = _live(training, training.expected, None, resume=False)
    if ending.exit_code != 0:
        raise RuntimeError(f"an undisturbed {kind} failed: {ending.output}")
    return Training(kind, work_dir, time.monotonic() - started_s)


def _kill_and_resume(training: Training, chance: random.Random, num_kills: int) -> Tally:
    """Kill a training up to `num_kills` times, then let it end, and compare it with its twin."""
    shutil.rmtree(training.out, ignore_errors=True)
    lost: list[str] = []
    num_killed = 0
    while num_killed < num_kills:
        death = _some_death(chance, training.seconds)
        ending = _live(training, training.out, death, resume=_clear_beginning(training))
        if ending.signal_number is None:
            lost += [f"{training.kind}, {death}: {ending.output[-800:]}"] if ending.exit_code else []
            break
        num_killed += 1
        lost += [f"{training.kind}, {death}: {problem}" for problem in _problems(training)]
    ending = _live(training, training.out, None, resume=_clear_beginning(training))
    if ending.exit_code != 0 or ending.has_traceback:
        lost.append(f"{training.kind} did not go on after {num_killed} kills: {ending.output[-800:]}")
    else:
        lost += [f"{training.kind} after {num_killed} kills: {text}" for text in _at_the_end(training)]
    return Tally(num_killed, num_killed - min(len(lost), num_killed), tuple(lost))


def _some_death(chance: random.Random, seconds: float) -> Death:
    way = chance.choice(("moment", "operation", "bytes"))
    if way == "moment":
        return Death(after_s=chance.uniform(0, 0.7 * seconds))
    num_bytes = int(10 ** chance.uniform(3.3, 7)) if way == "bytes" else None
    return Death(at_operation=chance.randint(1, 100), after_bytes=num_bytes)


def _live(training: Training, out: Path, death: Death | None, *, resume: bool) -> Ending:
    """Run the command in a process of its own, until it ends or dies."""
    options = _KINDS[training.kind]
    if resume:
        options = (*options[: options[0] == "kfold"], "--resume", *_SHARED[2:])
    else:
        options = (*options, "--cache", "cache")
        training.steps_log.write_bytes(b"")

    def command() -> None:
        os.chdir(training.work_dir)
        if death is not None and death.at_operation is not None:
            sys.addaudithook(_Executioner(out, death.at_operation, death.after_bytes))
        with (
            patch.object(figure_style, "lay_out", _leave_blank),
            patch.object(Recorder, "on_step", _told_step(training.steps_log)),
        ):
            cli.ltrain.main([*options, "--out", str(out)], prog_name="ltrain")

    process = Forked(command, training.work_dir / f"{training.kind}.log")
    return process.ending(death.after_s if death is not None else None, AT_MOST_S)


def _leave_blank(figure: Figure) -> None:
    figure.set_layout_engine(None)
    figure.draw = lambda renderer: None  # type: ignore[method-assign, assignment]


def _told_step(log: Path) -> Callable[..., None]:
    """Return a method that writes down each step before it is saved."""

    def on_step(recorder: Recorder, epoch: int, step: int, loss: float, num_samples: int) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{recorder._folder.root} {epoch} {step}\n")

    return on_step


class _Executioner:
    """Ends the process at one of its operations on files below a folder, or when it has written some more bytes.

    It is an audit hook, which hears of every file that is opened, renamed or removed, before that is done.
    """

    def __init__(self, folder: Path, at_operation: int, after_bytes: int | None) -> None:
        self._prefix = str(folder)
        self._left, self._bytes = at_operation, after_bytes

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir") or not self._concerns(event, arguments):
            return
        self._left -= 1
        if self._left:
            return
        if self._bytes is None:
            os.kill(os.getpid(), signal.SIGKILL)
            return
        # The kernel ends a process that writes more than this into a file, with the bytes up to there written.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def _concerns(self, event: str, arguments: tuple[Any, ...]) -> bool:
        is_writing = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR)
        return bool(is_writing) and str(arguments[0]).startswith(self._prefix)


def _clear_beginning(training: Training) -> bool:
    """Whether there is something to go on with; what was killed before that is removed, as its message says."""
    out = training.out
    if (out / "run.json").is_file() or (out / PLAN_FILE_NAME).is_file() or is_kfold(out):
        return True
    shutil.rmtree(out, ignore_errors=True)
    return False


def _problems(training: Training) -> Iterator[str]:
    """Yield what is wrong in the folder that a dead process has left."""
    yield from broken_files(training.out)
    last_steps = {}
    for line in training.steps_log.read_text(encoding="utf-8").splitlines():
        root, epoch, step = line.rsplit(" ", 2)
        last_steps[Path(root)] = (int(epoch), int(step))
    for root, (epoch, step) in last_steps.items():
        if _position(RunFolder(root)) < (epoch - 1, step - 1):
            yield f"{root.name} took step {step} of epoch {epoch}, but its last checkpoint is older than one step"


def _position(folder: RunFolder) -> tuple[int, int]:
    """Epochs and steps in the last checkpoint."""
    if not folder.is_begun:
        return 0, 0
    state = load_checkpoint(folder.checkpoint("last")).state
    return state.epochs_done, state.progress.steps_done if state.progress else 0


def _at_the_end(training: Training) -> Iterator[str]:
    yield from broken_files(training.out)
    yield from differences(training.out, training.expected)
