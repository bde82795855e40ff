"""The one place where layouts meet the library: its answer to a question, as a value that can be compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leukemia_data.errors import SourceError
from leukemia_data.sources.source import list_source


@dataclass(frozen=True, slots=True)
class ReadImage:
    """One image as it was read; empty texts where the reading knows nothing.

    Attributes
    ----------
    location
        Absolute path with links as they were given.
    """

    location: str
    class_name: str
    subject: str
    split: str
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reader said: images and classes, or a refusal.

    Attributes
    ----------
    images, classes
        What was read; no classes where it was refused.
    refusal
        The message of the refusal, None if there is none.
    readings
        Text and options of the readings that a refusal offers.
    text
        The reading in words, as far as there is one.
    """

    images: tuple[ReadImage, ...] = ()
    classes: tuple[str, ...] = ()
    refusal: str | None = None
    readings: tuple[tuple[str, Any], ...] = ()
    text: str = ""


def ask(sources: Sequence[Path], options: Any = None) -> Answer:
    """Read sources; `options` are those of a reading that was offered, or None."""
    try:
        listing = list_source(sources) if options is None else list_source(sources, options=options)
    except SourceError as error:
        readings = tuple((str(reading.text), reading.options) for reading in getattr(error, "readings", ()))
        return Answer(refusal=str(error), readings=readings)
    images = tuple(
        ReadImage(
            os.path.abspath(str(record.path)),  # noqa: PTH100 - links as they are given
            listing.classes[record.label] if record.label >= 0 else "",
            record.subject,
            record.split,
            record.is_missing,
        )
        for record in listing.records
    )
    return Answer(images, tuple(listing.classes), text=json.dumps(listing.reading.to_dict(), ensure_ascii=False))


def options_of(known: Mapping[str, object]) -> Any:
    """Reading options with these values."""
    from leukemia_data.sources.reading_options import ReadingOptions

    return ReadingOptions(**known)
