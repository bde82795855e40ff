"""Ways by which a source itself brings one person to both sides: copies, turned copies, other names of one person."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from .attempt import Attempt, attempt_training
from .bench import Bench
from .world import (
    CHANGES,
    CLASSES,
    Cell,
    copies_of,
    draw_people,
    of_person,
    some_person,
)

SPLITS = ("subject", "image", "fold:1/3", "test-fold:2/3", "given")


def renamed_person(bench: Bench, chance: random.Random) -> list[Attempt]:
    """One person's cells stand a second time under another name, changed as copies are."""
    cells, change = draw_people(chance), chance.choice(CHANGES)
    person = some_person(cells, chance)
    own = of_person(cells, person)
    copied = copies_of(chance.sample(own, chance.randint(1, len(own))), chance, change, prefix="again", subject="x9")
    return _train(bench, chance, f"{change.__name__} under another name", [*cells, *copied], ("x9",))


def copies_within_the_name(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Each person's cells stand several times under their own name: only a split by image can part them."""
    cells, change = draw_people(chance), chance.choice(CHANGES)
    copied = [
        again
        for person in sorted({cell.person for cell in cells})
        for again in copies_of(of_person(cells, person), chance, change, prefix=f"again-{person}")
    ]
    return _train(bench, chance, f"{change.__name__} under the same name", [*cells, *copied], ())


def name_spelled_otherwise(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Some cells of a person name it in another spelling."""
    cells = draw_people(chance)
    person = some_person(cells, chance)
    spelled = chance.choice((person.upper(), f"p0{person[1:]}", f"p-{person[1:]}", f"p_{person[1:]}"))
    other = {cell.name for cell in chance.sample(of_person(cells, person), 1)}
    cells = [replace(cell, subject=spelled) if cell.name in other else cell for cell in cells]
    return _train(bench, chance, "a name spelled otherwise", cells, (spelled,))


def unnamed_cells(bench: Bench, chance: random.Random) -> list[Attempt]:
    """Some cells name nobody; the source says where they belong."""
    cells = _given(draw_people(chance), chance, whole_people=False)
    person = some_person(cells, chance)
    cells = [replace(cell, subject="") if cell.person == person else cell for cell in cells]
    return attempt_training("cells without a name, split given", bench, _built(bench, cells), ["--split", "given"])


def merged_sources(bench: Bench, chance: random.Random) -> list[Attempt]:
    """A second collection holds some people of the first one under numbers of its own."""
    cells, change = draw_people(chance), chance.choice(CHANGES)
    people = chance.sample(sorted({cell.person for cell in cells}), 3)
    second = [
        again
        for number, person in enumerate(people)
        for again in copies_of(of_person(cells, person), chance, change, prefix=f"b{number}", subject=f"case{number}")
    ]
    strangers = [replace(cell, name=f"s-{cell.name}", subject=f"s{cell.subject}") for cell in draw_people(chance, 90)]
    return _train(
        bench,
        chance,
        f"two collections, {change.__name__}",
        [*cells, *second, *strangers[: 6 * len(CLASSES)]],
        ("case0", "case1", "case2"),
    )


def _train(bench: Bench, chance: random.Random, way: str, cells: Sequence[Cell], moved: Sequence[str]) -> list[Attempt]:
    """Train by a drawn split; where the source gives the split, `moved` subjects lie on another side than the rest."""
    split = chance.choice(SPLITS)
    if split == "given":
        cells = _given(cells, chance, whole_people=True)
        cells = [replace(cell, split="test") if cell.subject in moved else cell for cell in cells]
    return attempt_training(f"{way}, split {split}", bench, _built(bench, cells), ["--split", split])


def _given(cells: Sequence[Cell], chance: random.Random, *, whole_people: bool) -> list[Cell]:
    """Give each cell a part, by the subjects of the table or by images."""
    units = sorted({cell.subject if whole_people else cell.name for cell in cells})
    for label in CLASSES:
        # Every part needs both classes.
        own = [unit for unit in units if any(_unit(c, whole_people) == unit and c.label == label for c in cells)]
        chance.shuffle(own)
        part_of = {unit: ("train", "train", "valid", "test")[number % 4] for number, unit in enumerate(own)}
        cells = [replace(c, split=part_of.get(_unit(c, whole_people), c.split)) for c in cells]
    return list(cells)


def _unit(cell: Cell, whole_people: bool) -> str:
    return cell.subject if whole_people else cell.name


def _built(bench: Bench, cells: Sequence[Cell]) -> Sequence[Cell]:
    bench.build(cells)
    return cells


WAYS: tuple[Callable[[Bench, random.Random], list[Attempt]], ...] = (
    renamed_person,
    copies_within_the_name,
    name_spelled_otherwise,
    unnamed_cells,
    merged_sources,
)
