"""Levels of folders: each a list of names that depends on the folders above, and what the names mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .words import person_name


@dataclass(frozen=True, slots=True)
class Step:
    """One folder of a level.

    Attributes
    ----------
    name
        The folder's name; empty where there is no folder on this level.
    meaning
        What it stands for: a class, a split, a person.
    position
        Which of its level it is.
    """

    name: str
    meaning: str | None = None
    position: int = 0


Above = Mapping[str, Step]


@dataclass(frozen=True, slots=True)
class Level:
    """A role, and the folders that have it below given ones."""

    role: str
    steps: Callable[[Above], Sequence[Step]]


def named(role: str, names: Sequence[str]) -> Level:
    """Level with the same folders everywhere, which mean nothing."""
    return meaning(role, [(name, None) for name in names])


def meaning(role: str, pairs: Sequence[tuple[str, str | None]]) -> Level:
    """Level with the same folders everywhere, and their meanings."""
    steps = [Step(name, meant, position) for position, (name, meant) in enumerate(pairs)]
    return Level(role, lambda above: steps)


def paths_below(levels: Sequence[Level], above: Above | None = None) -> Iterator[dict[str, Step]]:
    """Every way down through the levels: the step taken on each, by role, in the order of the levels."""
    taken = dict(above or {})
    if not levels:
        yield taken
        return
    for step in levels[0].steps(taken):
        yield from paths_below(levels[1:], taken | {levels[0].role: step})


def person_level(form: str, num_persons: int, *, differ_by: Sequence[str]) -> Level:
    """Persons' folders; below different folders of the roles in `differ_by` lie different persons."""

    def steps(above: Above) -> list[Step]:
        group = 0
        for role in differ_by:
            group = group * 9 + (above[role].position if role in above else 0)
        names = [person_name(form, group * num_persons + number) for number in range(num_persons)]
        return [Step(name, name, position) for position, name in enumerate(names)]

    return Level("person", steps)


def class_levels(classes: Sequence[tuple[str, str]], groups: Sequence[str]) -> list[Level]:
    """Level of the classes (folder name, class); below groups, of which each holds some of them, if there are any."""
    all_steps = [Step(name, meant, position) for position, (name, meant) in enumerate(classes)]
    if not groups:
        return [Level("class", lambda above: all_steps)]
    share = -(-len(all_steps) // len(groups))
    return [
        named("group", groups),
        Level("class", lambda above: all_steps[above["group"].position * share :][:share]),
    ]


def subtype_level(names: Sequence[str], *, only_first: bool) -> Level:
    """Folders below a class that mean nothing and differ from class to class.

    With `only_first` only the first class has them, beside images that lie in its own folder.
    """

    def steps(above: Above) -> list[Step]:
        position = above["class"].position
        if only_first and position > 0:
            return [Step("")]
        steps = [Step(names[(2 * position + number) % len(names)], None, number) for number in range(2)]
        return [Step(""), *steps] if only_first else steps

    return Level("subtype", steps)
