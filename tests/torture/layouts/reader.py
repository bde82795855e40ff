"""The one place where layouts meet the library: its listing, or its refusal, as a value that can be compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leukemia_data.errors import AmbiguousSourceError, SourceError
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source

from .answer import Answer, ReadImage


def ask(sources: Sequence[Path], options: ReadingOptions | Mapping[str, Any] | None = None) -> Answer:
    """Read sources.

    Parameters
    ----------
    options
        Those of a reading that was offered, or values of reading options by their names, or None for none.
    """
    if isinstance(options, Mapping):
        options = ReadingOptions(**options)
    try:
        return _answer_of(list_source(sources, options=options or ReadingOptions()))
    except AmbiguousSourceError as error:
        readings = tuple((str(reading.text), reading.options) for reading in error.readings)
        return Answer(refusal=str(error), readings=readings)
    except SourceError as error:
        return Answer(refusal=str(error))


def _answer_of(listing: SourceListing) -> Answer:
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
