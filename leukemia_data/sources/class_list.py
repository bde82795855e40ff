"""From the class names that folders and tables tell to the classes of a source and their labels."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from leukemia_data.errors import AmbiguousSourceError, UsageError, listed
from leukemia_data.samples.record import CELL_CLASSES
from leukemia_data.sources.name_words import are_numbers, plain, same_plain
from leukemia_data.sources.reading_choice import ReadingChoice
from leukemia_data.sources.reading_options import ReadingOptions

LEFT_OUT = -2
"""Stands for the label of a class that ``--classes`` leaves out."""


def composed(name: str) -> str:
    """A class's or subject's name with accents composed (NFC): the same letters are the same name."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def place_of_class(name: str, classes: Sequence[str]) -> int | None:
    """Return the position of the class that a name of another source means; None where it means none, or several.

    A class of the very name is meant, else the only one that differs in case, blanks around it or composed accents
    alone. A number is a name like another.

    >>> place_of_class(" Healthy", ("Blast", "healthy")), place_of_class("hem", ("Blast", "healthy"))
    (1, None)
    """
    exact = [place for place, known in enumerate(classes) if composed(known) == composed(name)]
    found = exact or [place for place, known in enumerate(classes) if plain(known) == plain(name)]
    return found[0] if len(found) == 1 else None


def number_classes(counts: Mapping[str, int], options: ReadingOptions) -> tuple[tuple[str, ...], dict[str, int]]:
    """Order the classes of a source.

    Parameters
    ----------
    counts
        Names that the source tells, with the number of images of each.
    options
        ``classes`` orders and chooses them, ``merge`` joins some.

    Returns
    -------
    classes : tuple of str
        ``("hem", "all")`` for C-NMC, those that the user names, or all in alphabetical order; numbers by value.
    labels : dict
        Label of each name of the source; :data:`LEFT_OUT` for those that are left out.

    Raises
    ------
    UsageError
        If the user names classes that the source has not got.
    AmbiguousSourceError
        If names differ in their case alone.
    """
    merged = _merged(counts, options)
    names = sorted(set(merged.values()))
    if options.classes:
        classes = options.classes
        place = _places_of(names, options)
    else:
        if {plain(name) for name in names} <= set(CELL_CLASSES):
            classes = CELL_CLASSES
        else:
            _require_different(names, options)
            _require_one_kind(names, options)
            classes = tuple(sorted(names, key=int) if all(map(_is_number, names)) else names)
        place = {
            name: number for number, known in enumerate(classes) for name in names if _is_same(name, known, classes)
        }
    return classes, {raw: place.get(name, LEFT_OUT) for raw, name in merged.items()}


def _is_number(name: str) -> bool:
    """Whether a class is a whole number; it may be negative, as labels of -1 and 1 are."""
    return are_numbers([name.removeprefix("-")])


def _is_same(name: str, known: str, classes: Sequence[str]) -> bool:
    return plain(name) == known if classes == CELL_CLASSES else name == known


def _merged(counts: Mapping[str, int], options: ReadingOptions) -> dict[str, str]:
    """The class that each name of the source counts as."""
    new_of: dict[str, str] = {}
    for new, olds in options.merge:
        for old in olds:
            meant = [raw for raw in counts if composed(raw) == old] or [
                raw for raw in counts if plain(raw) == plain(old)
            ]
            if not meant:
                raise UsageError(f"--merge {new}=...: there is no class {old}; classes are {listed(sorted(counts))}")
            new_of.update(dict.fromkeys(meant, new))
    return {raw: new_of.get(raw, composed(raw)) for raw in counts}


def _places_of(names: Sequence[str], options: ReadingOptions) -> dict[str, int]:
    """Label of each name that ``--classes`` means."""
    classes = options.classes
    if are_numbers(names) and not set(names) & set(classes):
        if int(max(names, key=int)) >= len(classes):
            raise UsageError(f"--classes: the labels are {listed(names)}, and only {len(classes)} classes are named")
        return {name: int(name) for name in names}
    exact = {name: classes.index(name) for name in names if name in classes}
    folded: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        folded.setdefault(plain(name), []).append(number)
    places = {
        name: exact[name] if name in exact else found[0]
        for name in names
        if name in exact or len(found := folded.get(plain(name), [])) == 1
    }
    absent = [name for number, name in enumerate(classes) if number not in places.values()]
    if absent and not {plain(name) for name in classes} <= set(CELL_CLASSES):
        raise UsageError(f"--classes {absent[0]}: there is no such class; classes are {listed(names)}")
    return places


def _require_one_kind(names: Sequence[str], options: ReadingOptions) -> None:
    """Ask where some classes are numbers and others names: a number may mean one of the names."""
    numbers = [name for name in names if _is_number(name)]
    if not numbers or len(numbers) == len(names) or options.merge:
        return
    readings = [ReadingChoice.of("they are all different", options, classes=tuple(names))]
    cnmc = {number: CELL_CLASSES[int(number)] for number in numbers if number in ("0", "1")}
    if len(cnmc) == len(numbers) and any(plain(name) in CELL_CLASSES for name in names):
        merge = tuple((name, (name, number)) if name in names else (name, (number,)) for number, name in cnmc.items())
        readings.insert(0, ReadingChoice.of("0 is hem and 1 is all", options, merge=(*options.merge, *merge)))
    raise AmbiguousSourceError(f"some classes are numbers and others names: {listed(names)}", readings)


def _require_different(names: Sequence[str], options: ReadingOptions) -> None:
    groups = same_plain(names)
    if not groups:
        return
    merge = (*options.merge, *((group[0], tuple(group)) for group in groups))
    raise AmbiguousSourceError(
        f"classes differ in the case of their names alone: {', '.join(', '.join(group) for group in groups)}",
        [
            ReadingChoice.of("they are the same", options, merge=merge),
            ReadingChoice.of("they are different", options, classes=tuple(names)),
        ],
    )
