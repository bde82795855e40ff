"""All errors for users.

::

    LeukemiaError
    |-- UsageError        the request itself is wrong: an option, a recipe, a split name   (exit code 2)
    `-- FailedError       the request is fine, the work could not be done                  (exit code 1)
        |-- SourceError   images or tables that are missing, unreadable or contradictory
        |   `-- AmbiguousSourceError   a source that can be read in several ways
        |-- ImageError    one image that cannot be used; names the reason, the caller adds the path
        |-- CacheError    a cache that is absent, incomplete, damaged or of another format
        |-- BuildError    a build that stopped: no space, too many bad images, a lost worker
        |-- InterruptionError   work that Ctrl-C stopped, and how to go on                   (exit code 130)
        |-- StorageError  an object store that denies access, lacks an object, or cannot be reached
        `-- RunError      a training run that is absent, incomplete or does not fit the request

For a user's mistake, the library raises only these; ``cli`` turns each into one line and an exit code.
A message says what was wrong, in which file or option, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class LeukemiaError(Exception):
    """Base of all errors for users."""

    exit_code = 1


class UsageError(LeukemiaError, ValueError):
    """The request itself is wrong: an option value, a recipe, a split name."""

    exit_code = 2


class FailedError(LeukemiaError, RuntimeError):
    """The request is fine, but the work could not be done."""


class SourceError(FailedError):
    """Images or tables that are missing, unreadable or contradict each other."""


class PossibleReading(Protocol):
    """One way in which a source can be read."""

    @property
    def text(self) -> str:
        """The source as read so, on one line."""
        ...

    @property
    def choice(self) -> str:
        """The options of the command line that choose it."""
        ...


_MAX_CHOICES = 3


class AmbiguousSourceError(SourceError):
    """A source that can be read in several ways: what is ambiguous, and the possible readings."""

    def __init__(self, what: str, readings: Sequence[PossibleReading]) -> None:
        self.what, self.readings = what, tuple(readings)
        width = max(len(reading.choice) for reading in self.readings)
        lines = [f"\n  {reading.choice:<{width}}  {reading.text}" for reading in self.readings]
        choices = " or ".join(reading.choice for reading in self.readings[:_MAX_CHOICES])
        more = " or another of these" if len(self.readings) > _MAX_CHOICES else ""
        super().__init__(f"{what}; say which is meant, {choices}{more}:{''.join(lines)}")


class ImageError(FailedError):
    """One image cannot be used; the message is the reason, the caller adds the path."""


class CacheError(FailedError):
    """A cache that is absent, incomplete, damaged or written in another format."""


class BuildError(FailedError):
    """A build that stopped: no space, too many unusable images, a lost worker."""


class InterruptionError(FailedError):
    """Work that was interrupted; the message says what is kept and how to go on."""

    exit_code = 130


class StorageError(FailedError):
    """An object store that denies access, lacks an object, or cannot be reached."""


class RunError(FailedError):
    """A training run that is absent, incomplete, or does not fit the request."""


def listed(texts: Iterable[str], *, most: int = 10, separator: str = ", ") -> str:
    """Return the first few of many texts, and the number of others, for messages."""
    items = list(texts)
    rest = len(items) - most
    return separator.join(items[:most]) + (f" (and {rest} more)" if rest > 0 else "")


def require(condition: bool, message: str) -> None:
    """Raise UsageError unless the condition holds."""
    if not condition:
        raise UsageError(message)
