"""Results of each reading that the error of an ambiguous source offers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.options import READING_NAMES
from leukemia_data.errors import AmbiguousSourceError
from leukemia_data.sources.reading_options import ReadingChoice, ReadingOptions
from leukemia_data.sources.source import SourceListing, list_source

_REPEATED = ("merge", "exclude")


def parsed(command_text: str, given: ReadingOptions | None = None) -> ReadingOptions:
    """The options that a command line's text adds to others, read as click reads them."""
    words = shlex.split(command_text)
    texts: dict[str, list[str]] = {}
    for option, text in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        assert name in READING_NAMES
        texts.setdefault(name, []).append(text)
    assert all(len(values) == 1 for name, values in texts.items() if name not in _REPEATED)
    added = ReadingOptions.parse(**{name: values if name in _REPEATED else values[0] for name, values in texts.items()})
    return ReadingOptions.from_dict({**(given or ReadingOptions()).to_dict(), **added.to_dict()})


def ask(paths: Sequence[Path], given: ReadingOptions | None = None) -> dict[str, SourceListing]:
    """Result of each reading of an ambiguous source, by the options that choose it. Each is unambiguous."""
    with pytest.raises(AmbiguousSourceError) as caught:
        list_source(paths, options=given)
    choices = [reading for reading in caught.value.readings if isinstance(reading, ReadingChoice)]
    assert len(choices) == len(caught.value.readings) >= 1
    assert len({choice.choice for choice in choices}) == len(choices)
    assert all(choice.choice in str(caught.value) and choice.text in str(caught.value) for choice in choices)
    assert all(parsed(choice.choice, given) == choice.options for choice in choices)
    return {choice.choice: list_source(paths, options=choice.options) for choice in choices}


def classes_of(listings: dict[str, SourceListing]) -> dict[str, dict[str, int]]:
    """Images of each class of each reading."""
    return {choice: dict(listing.reading.classes) for choice, listing in listings.items()}
