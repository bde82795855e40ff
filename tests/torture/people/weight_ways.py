"""Ways by which weights bring people along: a run starts from what was trained on those it is evaluated on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .attempt import Attempt, attempt_training, outcome_of
from .bench import Bench, Seen, is_mixed, parts_of, stamps_below
from .world import CHANGES, Cell, draw_people

_PLAN = """\
model = "resnet18-narrow"

[defaults]
recipe = "raw"
batch_size = 16

[[stage]]
name = "only"
size = 32
epochs = 1
start = "{start}"
"""
FILES = ("last.safetensors", "best.safetensors", "final.safetensors")


def another_fold(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Weights of one fold, evaluated on another one."""
    cells, seen, start = _trained(bench, chance, "--split", "test-fold:1/3")
    return attempt_training("weights of another fold", bench, cells, ["--split", "test-fold:2/3", *start], seen=seen)


def another_seed(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Weights of a split that another seed drew."""
    cells, seen, start = _trained(bench, chance, "--split", "subject")
    options = ["--split", "subject", *start, "--seed", chance.randint(0, 9), "--split-seed", chance.randint(1, 9)]
    return attempt_training("weights of another split seed", bench, cells, options, seen=seen)


def moved_file(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Weights alone, without the folder of their run."""
    cells, seen, start = _trained(bench, chance, "--split", "test-fold:1/3")
    moved = bench.folder / "downloaded" / "weights.safetensors"
    moved.parent.mkdir()
    shutil.copy(str(start[1]), moved)
    shutil.rmtree(bench.folder / "first")
    options = ["--split", "test-fold:3/3", "--start", moved]
    return attempt_training("weights without their run", bench, cells, options, seen=seen)


def over_two_runs(bench: Bench, chance: random.Random) -> list[Attempt]:
    """A run in between: what its weights saw first is not in its own split."""
    cells, seen, start = _trained(bench, chance, "--split", "test-fold:1/3")
    told = bench.train("second", "--split", "test-fold:2/3", *start, "--allow-leak")
    if told.exit_code:
        return [Attempt("weights over two runs", True, "failed", told.text)]
    both = seen | Seen.of_run(cells, parts_of(bench.folder / "second"))
    again = ["--split", "test-fold:2/3", "--start", bench.folder / "second" / chance.choice(FILES[::2])]
    return attempt_training("weights over two runs", bench, cells, again, seen=both)


def renamed_source(bench: Bench, chance: random.Random) -> list[Attempt]:
    """The same photographs under other names of files and people, changed as copies are."""
    cells, seen, start = _trained(bench, chance, "--split", "test-fold:1/3")
    change = chance.choice(CHANGES)
    renamed = [
        replace(cell, name=f"n{number}.png", subject=f"q{cell.subject}", pixels=change(cell.pixels, chance))
        for number, cell in enumerate(cells)
    ]
    other = Bench(bench.folder / "renamed")
    other.build(renamed)
    options = ["--split", "test-fold:2/3", *start]
    return attempt_training(f"weights, source {change.__name__} and renamed", other, renamed, options, seen=seen)


def in_a_plan(bench: Bench, chance: random.Random) -> list[Attempt]:
    """A plan's stage starts from a file."""
    cells, seen, start = _trained(bench, chance, "--split", "test-fold:1/3")
    plan = bench.folder / "plan.toml"
    plan.write_text(_PLAN.format(start=Path(str(start[1])).as_posix()), encoding="utf-8")
    attempts = []
    for allowed in ((), ("--allow-leak",)):
        out = bench.folder / f"planned{len(allowed)}"
        told = bench.ltrain(
            *("--plan", plan, "--cache", bench.cache, "--device", "cpu", "--split", "test-fold:2/3"),
            *("--num-threads", "1", "--out", out, *allowed),
        )
        parts = parts_of(out / "01-only") if (out / "01-only").is_dir() else None
        # A refused plan leaves no split: it would have been that of the next one.
        truth = True if parts is None else is_mixed(cells, parts, seen)
        attempts.append(Attempt("weights in a plan", truth, outcome_of(told, stamps_below(out)), told.text))
    return attempts


def in_a_cross_validation(bench: Bench, chance: random.Random) -> list[Attempt]:
    """All folds start from weights that saw some of the people."""
    _, _, start = _trained(bench, chance, "--split", "test-fold:1/3")
    attempts = []
    for allowed in ((), ("--allow-leak",)):
        out = f"folds{len(allowed)}"
        told = bench.kfold(out, "--folds", "2", *start, *allowed)
        stamps = stamps_below(bench.folder / out)
        attempts.append(Attempt("weights in a cross-validation", True, outcome_of(told, stamps), told.text))
    return attempts


def _trained(
    bench: Bench, chance: random.Random, *options: object
) -> tuple[Sequence[Cell], Seen, tuple[object, object]]:
    """Train a first run; return what it saw, and the options that start from it."""
    cells = draw_people(chance)
    bench.build(cells)
    told = bench.train("first", *options, *chance.choice(((), ("--ema", "0.9"))))
    if told.exit_code:
        raise RuntimeError(f"the first run of this trial failed: {told.text}")
    # Without a validation part there is no best epoch.
    files = [name for name in FILES if (bench.folder / "first" / name).is_file()]
    start = bench.folder / "first" / chance.choice(files)
    return cells, Seen.of_run(cells, parts_of(bench.folder / "first")), ("--start", start)


WAYS: tuple[Callable[[Bench, random.Random], list[Attempt]], ...] = (
    another_fold,
    another_seed,
    moved_file,
    over_two_runs,
    renamed_source,
    in_a_plan,
    in_a_cross_validation,
)
