"""Ways after a training: what is evaluated is no longer what was split, or comes from elsewhere."""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from .attempt import Attempt, Outcome, attempt_evaluation, outcome_of
from .bench import Bench, Seen, Some, Told, parts_of
from .world import CHANGES, Cell, copies_of, draw_people, write_source


def renumbered_files(bench: Bench, chance: random.Random) -> list[Attempt]:
    """The cache is built again from other images under the same names."""
    cells, seen = _trained(bench, chance)
    pixels = {cell.name: cell for cell in cells}
    names = {label: [cell.name for cell in cells if cell.label == label] for label in ("hem", "all")}
    new_name = {}
    for own in names.values():
        new_name.update(zip(own, chance.sample(own, len(own)), strict=True))
    # The table says whom a file shows by its name, as it did before.
    moved = [
        replace(pixels[old], name=new, subject=pixels[new].subject, label=pixels[new].label)
        for old, new in new_name.items()
    ]
    bench.build(moved)
    return _evaluated(bench, chance, "files renumbered", moved, seen)


def edited_split(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Somebody swaps the training and the test part in the run's list."""
    cells, seen = _trained(bench, chance)
    path = bench.folder / "run" / "split.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    swapped = {"train": "test", "test": "train"}
    some = set(chance.sample(range(len(rows)), chance.randint(len(rows) // 2, len(rows))))
    for number in some:
        rows[number]["split"] = swapped.get(rows[number]["split"], rows[number]["split"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return _evaluated(bench, chance, "split.csv edited", cells, seen)


def other_subjects(bench: Bench, chance: random.Random) -> list[Attempt]:
    """The cache is built again with other names of people: a new split of them means others."""
    cells, seen = _trained(bench, chance)
    names = sorted({cell.subject for cell in cells})
    new_name = dict(zip(names, chance.sample(names, len(names)), strict=True))
    label_of = {cell.subject: cell.label for cell in cells}
    moved = [
        replace(cell, subject=new_name[cell.subject])
        if label_of[cell.subject] == label_of[new_name[cell.subject]]
        else cell
        for cell in cells
    ]
    bench.build(moved)
    # The run's own rows keep their parts, so that nobody is really on two sides: only their names are wrong now.
    return _evaluated(bench, chance, "people renamed", moved, seen)


def other_cache(bench: Bench, chance: random.Random) -> list[Attempt]:
    """``--cache`` names a cache of other images under the same names."""
    cells, seen = _trained(bench, chance)
    other = Bench(bench.folder / "other")
    shuffled = chance.sample(range(len(cells)), len(cells))
    moved = [
        replace(cells[old], name=cell.name, subject=cell.subject) for old, cell in zip(shuffled, cells, strict=True)
    ]
    moved = [replace(cell, label=cells[number].label) for number, cell in enumerate(moved)]
    other.build(moved)
    return _evaluated(bench, chance, "another cache", moved, seen, "--cache", other.cache)


def training_images_from_outside(bench: Bench, chance: random.Random) -> list[Attempt]:
    """A folder that is said to come from elsewhere holds images that were trained on."""
    cells, seen = _trained(bench, chance)
    change = chance.choice(CHANGES)
    parts = parts_of(bench.folder / "run")
    trained = [cell for cell in cells if parts[cell.name] == "train"]
    copied = copies_of(chance.sample(trained, 6), chance, change, prefix="n")
    copied = [replace(cell, subject=f"new{number}") for number, cell in enumerate(copied)]
    strangers = [replace(cell, name=f"s-{cell.name}", subject=f"s{cell.subject}") for cell in draw_people(chance, 90)]
    table = write_source([*copied, *strangers], bench.folder / "outside", "more")
    out = bench.folder / "judged"
    told = bench.ltrain("evaluate", bench.folder / "run", table, "--out", out, "--device", "cpu")
    return attempt_evaluation(
        f"outside images, {change.__name__}", told, out, truth=seen.meets(valid=Some(), test=Some.of(copied))
    )


def _trained(bench: Bench, chance: random.Random) -> tuple[Sequence[Cell], Seen]:
    cells = draw_people(chance)
    bench.build(cells)
    split = chance.choice(("subject", "test-fold:1/3"))
    told = bench.train("run", "--split", split)
    if told.exit_code:
        raise RuntimeError(f"the run of this trial failed: {told.text}")
    return cells, Seen.of_run(cells, parts_of(bench.folder / "run"))


def _evaluated(
    bench: Bench, chance: random.Random, way: str, cells: Sequence[Cell], seen: Seen, *options: object
) -> list[Attempt]:
    """Evaluate the test part, or predict it, or go on with the run; the truth is in what the names stand for now."""
    run = bench.folder / "run"
    parts = parts_of(run)
    truth = seen.meets(valid=Some(), test=Some.of(cell for cell in cells if parts.get(cell.name) == "test"))
    shutil.rmtree(run / "test", ignore_errors=True)
    what = chance.choice(("evaluate", "predict", "resume"))
    if what == "resume":
        told = bench.ltrain("--resume", "--out", run, "--epochs", "2", "--device", "cpu", *options)
        return attempt_evaluation(f"{way}, resumed", told, run / "test", truth=truth)
    if what == "predict":
        out = bench.folder / "predictions.csv"
        told = bench.ltrain("predict", run, "--part", "test", "--out", out, "--device", "cpu", *options)
        return [Attempt(f"{way}, predicted", truth, _of_predictions(told, out), told.text)]
    told = bench.ltrain("evaluate", run, "--device", "cpu", *options)
    return attempt_evaluation(f"{way}, evaluated", told, run / "test", truth=truth)


def _of_predictions(told: Told, path: Path) -> Outcome:
    if not path.is_file():
        return outcome_of(told, [])
    with path.open(newline="", encoding="utf-8") as file:
        return outcome_of(told, [row["stamp"] for row in csv.DictReader(file)])


WAYS: tuple[Callable[[Bench, random.Random], list[Attempt]], ...] = (
    renumbered_files,
    edited_split,
    other_subjects,
    other_cache,
    training_images_from_outside,
)
