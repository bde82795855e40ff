"""One of several ways in which a source can be read, to be chosen by options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from leukemia_data.errors import AmbiguousSourceError, UsageError
from leukemia_data.sources.reading_options import ReadingOptions


class ReadingChoice(NamedTuple):
    """What a source holds if it is read in one way, and what chooses it.

    Attributes
    ----------
    text
        What it then holds, on one line.
    options
        All options that choose it; with them nothing is asked any more about this.
    given
        The options that were given when it was asked.
    """

    text: str
    options: ReadingOptions
    given: ReadingOptions

    @classmethod
    def of(cls, text: str, given: ReadingOptions, **added: Any) -> ReadingChoice:  # noqa: ANN401 - options of any kind
        """The way that some options choose, added to those given."""
        return cls(text, replace(given, **added), given)

    @property
    def choice(self) -> str:
        """What is to be added to the command line."""
        names = [field.name for field in fields(ReadingOptions)]
        added = {name: getattr(self.options, name) for name in names}
        return ReadingOptions(
            **{name: value for name, value in added.items() if value != getattr(self.given, name)}
        ).command_text


def ask_at_once(
    what: str, readings: Sequence[ReadingChoice], read: Callable[[ReadingOptions], object]
) -> AmbiguousSourceError:
    """The error that asks which reading is meant; one that leads to further questions stands there with every answer.

    Parameters
    ----------
    what
        What is ambiguous.
    readings
        The ways to read it.
    read
        Reads with the options of one of them; AmbiguousSourceError if there is another question.
    """
    complete: list[ReadingChoice] = []
    for reading in readings:
        try:
            read(reading.options)
        except AmbiguousSourceError as error:
            further = [each for each in error.readings if isinstance(each, ReadingChoice)]
            complete.extend(
                ReadingChoice(f"{reading.text}; {each.text}", each.options, reading.given) for each in further
            )
        except UsageError:
            # Its options would mean something else.
            continue
        else:
            complete.append(reading)
    return AmbiguousSourceError(what, complete)
