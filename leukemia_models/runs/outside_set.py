"""A set of labelled images from outside a run: read as a build reads its source, its classes matched to the run's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leukemia_data.errors import UsageError, listed
from leukemia_data.samples.record import UNKNOWN_LABEL, ImagePlace
from leukemia_data.sources.class_list import place_of_class
from leukemia_data.sources.image_rows import ImageRow, file_key
from leukemia_data.sources.name_words import are_numbers
from leukemia_data.sources.positive_class import known_positive
from leukemia_data.sources.reading import Reading
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source

_LONGEST_NAME = 60
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class OutsideSet:
    """Images that a run is evaluated on and was not split from.

    Attributes
    ----------
    name
        For folders and pages: ``outside-`` and the names of its sources.
    places
        Its sources, absolute.
    rows
        One an image, in the order of the ids.
    labels
        One a row: position in the run's classes, or -1.
    reading
        How the sources were understood.
    """

    name: str
    places: tuple[str, ...]
    rows: tuple[ImageRow, ...]
    labels: tuple[int, ...]
    reading: Reading

    @property
    def lines(self) -> list[str]:
        """The reading for people; which class is the positive one is the run's affair."""
        return [line for line in self.reading.lines() if not line.startswith("positive class: ")]


def read_outside_set(
    paths: Sequence[ImagePlace],
    classes: Sequence[str],
    positive: str,
    *,
    root: ImagePlace | None = None,
    allow_outside: bool = False,
    options: ReadingOptions | None = None,
) -> OutsideSet:
    """List an outside set.

    Parameters
    ----------
    paths, root, allow_outside, options
        As for :func:`leukemia_data.sources.source.list_source`, whose errors it raises.
    classes
        Those of the run. A class of the set is the run's class of the same name, without regard to case and accents'
        composition (:func:`~leukemia_data.sources.class_list.place_of_class`); nothing else is mapped.
    positive
        The run's positive class; options may name no other one.

    Raises
    ------
    UsageError
        If the options name another positive class, images are of a class that the run has not got, two classes of the
        set are one of the run, or no image has a label.
    """
    if options is not None and options.positive not in (None, positive):
        raise UsageError(f"--positive {options.positive}: the run's positive class is {positive}, as it was trained")
    listing = list_source(
        paths,
        root=root,
        allow_outside=allow_outside,
        options=None if options is None else replace(options, positive=None),
    )
    place_of = _matched([name for name, count in listing.reading.classes if count], classes, positive)
    place_of_label = {label: place_of[name] for label, name in enumerate(listing.classes) if name in place_of} | {
        UNKNOWN_LABEL: UNKNOWN_LABEL
    }
    if not place_of:
        raise UsageError(
            f"no image of {listed(map(str, paths))} has a label to evaluate by: use `ltrain predict`, or say with "
            "--class-level or --label-column where labels are"
        )
    return OutsideSet(
        name=_name(paths),
        places=tuple(str(path.resolve()) if isinstance(path, Path) else str(path) for path in paths),
        rows=tuple(
            ImageRow(record, _class_name(record.label, listing.classes), file_key(record.path))
            for record in listing.records
        ),
        labels=tuple(place_of_label[record.label] for record in listing.records),
        reading=listing.reading,
    )


def _class_name(label: int, classes: Sequence[str]) -> str | None:
    return None if label == UNKNOWN_LABEL else classes[label]


def _matched(names: Sequence[str], classes: Sequence[str], positive: str) -> dict[str, int]:
    """The run's class of each class of the set."""
    found = {name: place_of_class(name, classes) for name in names}
    strange = [name for name, place in found.items() if place is None]
    if strange:
        raise UsageError(
            f"the run has no class {listed(strange)}; its classes are {listed(classes)}. "
            f"{_cure(strange, names, classes, positive)}"
        )
    known = {name: place for name, place in found.items() if place is not None}
    if len(set(known.values())) < len(known):
        raise UsageError(f"several of the classes {listed(names)} are one class of the run: join them with --merge")
    return known


def _cure(strange: Sequence[str], names: Sequence[str], classes: Sequence[str], positive: str) -> str:
    """Options that would say what the strange classes mean. An example must not name the healthy ones diseased."""
    order = (*(name for name in classes if name != positive), positive)
    chosen = ReadingOptions(classes=order).command_text
    if are_numbers(strange) and max(map(int, strange)) < len(classes):
        meaning = ", ".join(f"{number} {name}" for number, name in enumerate(order))
        return f"{chosen} makes of the numbers {meaning}"
    told = known_positive(names)
    if told is None or len(order) != len(names):
        example = ReadingOptions(merge=((positive, ("NAME",)),)).command_text
        return f"Say what each means, as {example}; {chosen} leaves others out"
    meant = [(positive if name == told.name else order[0], (name,)) for name in names if name in strange]
    return f"Say what each means, such as {ReadingOptions(merge=tuple(meant)).command_text}; {chosen} leaves others out"


def _name(paths: Sequence[ImagePlace]) -> str:
    """The names of the sources, as part of a file's name."""
    places = [path.resolve() if isinstance(path, Path) else path for path in paths]
    names = [place.stem if place.suffix.lower() == ".csv" else place.name for place in places]
    joined = _NOT_IN_FILE_NAMES.sub("-", "-".join(names)).strip("-.")[:_LONGEST_NAME]
    return f"outside-{joined or 'images'}"
