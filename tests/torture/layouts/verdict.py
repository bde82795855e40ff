"""Whether an answer is right: the reading equals the truth, or is refused with the truth among its readings."""

from __future__ import annotations

import enum
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .answer import Answer, ReadImage
from .layout import Cell, Layout

MAX_READINGS = 12
"""Readings that a refusal may offer: among any number of them the truth would be easy to have, and hard to find."""

Ask = Callable[[Any], Answer]
"""Reads the layout's sources with options, or None."""


class Outcome(enum.Enum):
    """What became of a layout."""

    EQUAL = "equal"
    REFUSED_WITH_TRUTH = "refused, truth offered"
    REFUSED_BY_NAME = "refused, cause named"
    REFUSED_THOUGH_PLAIN = "refused though plain"
    REFUSED_WITHOUT_TRUTH = "refused without truth"
    SUBJECTS_LOST = "subjects lost"
    WRONG_WITH_OPTIONS = "wrong with options"
    CRASHED = "crashed"
    SILENTLY_WRONG = "silently wrong"

    @property
    def is_right(self) -> bool:
        """Whether it is one of those that may be."""
        return self in (Outcome.EQUAL, Outcome.REFUSED_WITH_TRUTH, Outcome.REFUSED_BY_NAME)


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and what led to it in words."""

    outcome: Outcome
    why: str = ""


def check_reading(layout: Layout, folder: Path, ask: Ask, *, options: Any = None) -> Verdict:
    """Ask for the reading of a layout that lies in a folder, and compare it with the truth.

    Parameters
    ----------
    ask
        Reads the layout's sources.
    options
        Those of somebody who knows the truth. If they are given, reading with them has to equal the truth too.
    """
    try:
        verdict = _first_verdict(layout, folder, ask)
        if verdict.outcome.is_right and options is not None:
            return _with_options(layout, folder, ask(options)) or verdict
    except Exception as error:
        return Verdict(Outcome.CRASHED, f"{type(error).__name__}: {error}"[:300])
    return verdict


def differences(layout: Layout, folder: Path, answer: Answer) -> list[str]:
    """In what a reading differs from the truth; unknown subjects are no difference, wrong ones are."""
    by_path = {cell.path: cell for cell in layout.cells}
    listed, found = _by_path(layout, folder, answer)
    found += [f"not listed: {path}" for path in by_path if path not in listed]
    found += [f"listed, but no cell: {path} as {i.class_name!r}" for path, i in listed.items() if path not in by_path]
    pairs = [(by_path[path], image) for path, image in listed.items() if path in by_path]
    found += [d for cell, image in pairs for d in _differences_of_one(layout, cell, image)]
    found += _divided_classes(pairs)
    found += _wrong_subjects(pairs)
    found += [f"class without images: {name}" for name in sorted(_strange_classes(layout, answer))]
    return found


def lost_subjects(layout: Layout, folder: Path, answer: Answer) -> list[str]:
    """Images of which the truth's subject is unknown to the reading."""
    listed, _ = _by_path(layout, folder, answer)
    return [cell.path for cell in layout.cells if cell.subject and not listed[cell.path].subject]


def _first_verdict(layout: Layout, folder: Path, ask: Ask) -> Verdict:
    answer = ask(None)
    if answer.refusal is not None:
        return _of_refusal(layout, folder, answer, ask)
    found = differences(layout, folder, answer)
    if layout.refusable_by and any(image.is_missing for image in answer.images):
        # The build names missing files, and stops.
        return Verdict(Outcome.REFUSED_BY_NAME, "files are missing")
    if layout.is_never_silent:
        return Verdict(Outcome.SILENTLY_WRONG, f"taken without a question; {_some(found)}")
    if found:
        return Verdict(Outcome.SILENTLY_WRONG, f"{_some(found)}; read as {answer.text[:600]}")
    lost = lost_subjects(layout, folder, answer) if layout.are_subjects_given else []
    return Verdict(Outcome.SUBJECTS_LOST, _some(lost)) if lost else Verdict(Outcome.EQUAL)


def _of_refusal(layout: Layout, folder: Path, answer: Answer, ask: Ask) -> Verdict:
    why = [f"refused: {answer.refusal}"[:600]]
    if layout.is_plain:
        return Verdict(Outcome.REFUSED_THOUGH_PLAIN, why[0])
    if len(answer.readings) > MAX_READINGS:
        return Verdict(Outcome.REFUSED_WITHOUT_TRUTH, f"{len(answer.readings)} readings are too many to choose from")
    is_offered = is_named_later = False
    for text, options in answer.readings:
        reading = ask(options)
        if reading.refusal is not None:
            if _names_cause(layout, reading.refusal):
                is_named_later = True
                continue
            why = [f"{why[0]}; its own reading {text!r} is refused: {reading.refusal}"]
            return Verdict(Outcome.REFUSED_WITHOUT_TRUTH, why[0])
        found = differences(layout, folder, reading)
        is_offered = is_offered or not found
        why.append(f"reading {text!r}: {_some(found, 3)}")
    if is_offered:
        return Verdict(Outcome.REFUSED_WITH_TRUTH)
    if is_named_later or _names_cause(layout, " ".join([answer.refusal or "", *(text for text, _ in answer.readings)])):
        return Verdict(Outcome.REFUSED_BY_NAME)
    return Verdict(Outcome.REFUSED_WITHOUT_TRUTH, "; ".join(why))


def _names_cause(layout: Layout, message: str) -> bool:
    """Whether a refusal names the file, folder or column that cannot be read."""
    return any(name in message for name in layout.refusable_by)


def _with_options(layout: Layout, folder: Path, answer: Answer) -> Verdict | None:
    """What is wrong with the answer to options that name the truth; None if nothing is."""
    if answer.refusal is not None:
        is_named = _names_cause(layout, answer.refusal)
        return None if is_named else Verdict(Outcome.WRONG_WITH_OPTIONS, f"refused: {answer.refusal}"[:600])
    found = differences(layout, folder, answer)
    if not found and "subject_column" in layout.options:
        found = [f"subject unknown: {path}" for path in lost_subjects(layout, folder, answer)]
    return Verdict(Outcome.WRONG_WITH_OPTIONS, _some(found)) if found else None


def _by_path(layout: Layout, folder: Path, answer: Answer) -> tuple[dict[str, ReadImage], list[str]]:
    """Images by their path below the layout's folder, and those that are listed more than once."""
    root = os.path.abspath(folder)  # noqa: PTH100 - links as they are given
    # A reader may give a file by the path behind a link.
    links = {os.path.realpath(f"{root}/{c.path}"): c.path for c in layout.cells} if layout.links else {}
    known = {cell.path for cell in layout.cells}
    listed: dict[str, ReadImage] = {}
    twice = []
    for image in answer.images:
        path = image.location.removeprefix(f"{root}/")
        if path not in known:
            path = links.get(os.path.realpath(image.location), path)
        if path in listed:
            twice.append(f"listed twice: {path}")
        listed[path] = image
    return listed, twice


def _differences_of_one(layout: Layout, cell: Cell, image: ReadImage) -> Iterator[str]:
    if _composed(image.class_name) not in _names_of(layout, cell.class_name):
        yield f"class: {cell.path}: {image.class_name!r}, not {cell.class_name!r}"
    if image.split != (cell.split or ""):
        yield f"split: {cell.path}: {image.split!r}, not {cell.split!r}"
    if image.subject and cell.subject is None:
        yield f"subject: {cell.path}: {image.subject!r}, not unknown"


def _divided_classes(pairs: list[tuple[Cell, ReadImage]]) -> Iterator[str]:
    """Classes of which the images were read as several, under spellings that are each right."""
    read_as = defaultdict[str, set[str]](set)
    for cell, image in pairs:
        if cell.class_name is not None:
            read_as[cell.class_name].add(image.class_name)
    yield from (f"class: {name} is read as {sorted(many)}" for name, many in read_as.items() if len(many) > 1)


def _names_of(layout: Layout, class_name: str | None) -> set[str]:
    """Names under which a class may be read; the empty one for none."""
    if class_name is None:
        return {""}
    return {_composed(name) for name in (class_name, *layout.aliases.get(class_name, ()))}


def _wrong_subjects(pairs: list[tuple[Cell, ReadImage]]) -> Iterator[str]:
    """Subjects that were read as one though they are two, or as two though they are one; names do not count."""
    read_of, true_of = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for cell, image in pairs:
        if cell.subject and image.subject:
            read_of[cell.subject].add(image.subject)
            true_of[image.subject].add(cell.subject)
    yield from (f"subject: {one} is read as {sorted(many)}" for one, many in read_of.items() if len(many) > 1)
    yield from (f"subject: {one} is read for {sorted(many)}" for one, many in true_of.items() if len(many) > 1)


def _strange_classes(layout: Layout, answer: Answer) -> set[str]:
    """Classes that are read though they are neither true nor C-NMC's nor an empty folder's."""
    true = {"hem", "all"} | {path.rpartition("/")[2] for path in layout.empty_folders}
    for cell in layout.cells:
        true |= _names_of(layout, cell.class_name)
    return {name for name in map(_composed, answer.classes) if name not in true}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(texts: list[str], most: int = 6) -> str:
    rest = len(texts) - most
    return "; ".join(texts[:most]) + (f"; and {rest} more" if rest > 0 else "")
