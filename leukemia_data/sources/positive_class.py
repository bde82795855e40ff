"""Compare class names, and find the positive one of two classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from leukemia_data.errors import UsageError, listed
from leukemia_data.sources.name_words import is_cell_class, plain, tokens, words_of
from leukemia_data.sources.reading_options import ReadingOptions

_CLASSES = words_of("cells", "classes")
_NEGATIVE, _NEGATIONS = words_of("cells", "negative"), words_of("cells", "negations")
_FIRST_UNSPACED = "\u3000"
"""From this character on, words are not separated by blanks."""
_NUMBERED_PAIRS = frozenset({("0", "1"), ("-1", "1")})
_NUM_CLASSES = 2


def composed(name: str) -> str:
    """Return a class's or subject's name with accents composed (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def place_of_class(name: str, classes: Sequence[str]) -> int | None:
    """Return the position of the class with a name from another source; None if there is none, or several.

    The class of the exact name is meant, else the only one that differs in case, surrounding blanks or composed
    accents.

    >>> place_of_class(" Healthy", ("Blast", "healthy")), place_of_class("hem", ("Blast", "healthy"))
    (1, None)
    """
    exact = [place for place, known in enumerate(classes) if composed(known) == composed(name)]
    found = exact or [place for place, known in enumerate(classes) if plain(known) == plain(name)]
    return found[0] if len(found) == 1 else None


class PositiveClass(NamedTuple):
    """The positive class of two, and the reason in words."""

    name: str
    reason: str


def known_positive(classes: Sequence[str]) -> PositiveClass | None:
    """Return the positive class that the names of two classes imply.

    None if there are not two classes, or neither name or both mean the absence of disease.

    >>> known_positive(["Blast", "Healthy"]).name, known_positive(["benign", "malignant"]).name
    ('Blast', 'malignant')
    >>> known_positive(["early", "late"]) is None
    True
    """
    if len(classes) != _NUM_CLASSES:
        return None
    pair = f"of the pair {classes[0]}/{classes[1]}"
    if tuple(sorted(classes)) in _NUMBERED_PAIRS:
        return PositiveClass("1", f"{pair}: 1 usually stands for the disease")
    negative = [name for name in classes if _means_absence(name)]
    if len(negative) != 1:
        return None
    [positive] = [name for name in classes if name != negative[0]]
    return PositiveClass(positive, f"{pair}: {negative[0]} is the negative one")


def choose_positive(
    classes: Sequence[str], asked: str | None = None, *, built_with: PositiveClass | None = None
) -> PositiveClass | None:
    """Return the positive class: `asked`, else the cache's, else the one that the names imply; None if undecided.

    Parameters
    ----------
    classes : sequence of str
        Names in the order of their labels.
    asked : str, optional
        The value of ``--positive``; its case is ignored if one class matches.
    built_with : PositiveClass, optional
        The one in the cache's manifest.

    Raises
    ------
    UsageError
        If `asked` is none of the classes.
    """
    if asked is not None:
        return PositiveClass(_class_named(classes, asked), "chosen with --positive")
    if built_with is not None and built_with.name in classes:
        return built_with
    return known_positive(classes)


def require_positive(
    classes: Sequence[str], asked: str | None = None, *, built_with: PositiveClass | None = None
) -> PositiveClass:
    """Return the result of :func:`choose_positive`.

    Raises
    ------
    UsageError
        If `asked` is none of the classes, or it is undecided: the message names the option for each class.
    """
    chosen = choose_positive(classes, asked, built_with=built_with)
    if chosen is None:
        raise UsageError(
            f"which class is the positive one, whose recall is the sensitivity? The names {listed(classes)} do not "
            f"imply one: say {_options_text(classes)}"
        )
    return chosen


def evaluated_order(classes: Sequence[str], positive: str | None = None) -> tuple[str, ...]:
    """Return classes in the order of evaluations: two as (negative, positive), more as they are.

    Of two classes `positive` defaults to the second.

    Raises
    ------
    UsageError
        If there is one class, or `positive` is not one of two.
    """
    if len(classes) > _NUM_CLASSES and positive is None:
        return tuple(classes)
    positive = classes[-1] if positive is None else positive
    if len(classes) != _NUM_CLASSES or positive not in classes:
        raise UsageError(f"the positive class {positive!r} is not one of two classes {listed(classes)}")
    [negative] = [name for name in classes if name != positive]
    return negative, positive


def positive_of(order: Sequence[str]) -> str | None:
    """Return the positive class of classes in :func:`evaluated_order`; None of more than two."""
    return order[-1] if len(order) == _NUM_CLASSES else None


def positive_text(classes: Sequence[str], chosen: PositiveClass | None) -> str:
    """Return the choice as one line of text, ``positive class: ...``."""
    if chosen is None:
        return f"positive class: open, here or at training say {_options_text(classes)}"
    return f"positive class: {chosen.name} ({chosen.reason}); --positive changes it"


def classes_text(classes: Sequence[str]) -> str:
    """Return more than two classes as one line of text; none of them is the positive one."""
    return f"{len(classes)} classes: {', '.join(classes)}; numbers are means over them, and of each against the rest"


def _options_text(classes: Sequence[str]) -> str:
    return " or ".join(ReadingOptions(positive=name).command_text for name in classes)


def _class_named(classes: Sequence[str], asked: str) -> str:
    alike = [name for name in classes if name == asked] or [name for name in classes if plain(name) == plain(asked)]
    if len(alike) != 1:
        raise UsageError(f"--positive {asked}: there is no such class; classes are {listed(classes)}")
    return alike[0]


def _means_absence(name: str) -> bool:
    """Whether a class's name means the absence of disease: ``Healthy``, ``no leukemia``, not ``not healthy``."""
    words = [part for word in tokens(name) for part in _parted(word)]
    is_negated = any(_is_one(word, _NEGATIONS) for word in words)
    if any(_is_one(word, _NEGATIVE) for word in words):
        return not is_negated
    return is_negated and any(_is_one(word, _CLASSES) for word in words)


def _parted(word: str) -> tuple[str, ...]:
    """``nonleukemic`` as two words; other words unchanged."""
    rest = word.removeprefix("non")
    return ("non", rest) if rest != word and is_cell_class(rest) else (word,)


def _is_one(word: str, known: frozenset[str]) -> bool:
    if word in known or word.removesuffix("s") in known:
        return True
    return not word.isascii() and any(other in word for other in known if other[0] >= _FIRST_UNSPACED)
