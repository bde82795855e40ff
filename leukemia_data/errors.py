"""Every error a user can cause or meet, in one tree.

::

    LeukemiaError
    |-- UsageError        the request itself is wrong: an option, a recipe, a split name   (exit code 2)
    `-- FailedError       the request is fine, the work could not be done                  (exit code 1)
        |-- SourceError   images or tables that are missing, unreadable or contradictory
        |-- ImageError    one image that cannot be used; names the reason, the caller adds the path
        |-- CacheError    a cache that is absent, incomplete, damaged or of another format
        |-- BuildError    a build that stopped: no space, too many bad images, a lost worker
        |-- StorageError  an object store that denies something, has not got it, or cannot be reached
        `-- RunError      a training run that is absent, incomplete or does not fit what it is asked for

The library raises these and nothing else for a user's mistake; ``cli`` turns each into one line and an exit code.
A message says what was wrong, in which file or option, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class LeukemiaError(Exception):
    """Base of all errors raised on purpose by this project."""

    exit_code = 1


class UsageError(LeukemiaError, ValueError):
    """The request itself is wrong: an option value, a recipe, a split name."""

    exit_code = 2


class FailedError(LeukemiaError, RuntimeError):
    """The request is fine, but the work could not be done."""


class SourceError(FailedError):
    """Images or tables that are missing, unreadable or contradict each other."""


class ImageError(FailedError):
    """One image cannot be used; the message is the reason, the caller adds the path."""


class CacheError(FailedError):
    """A cache that is absent, incomplete, damaged or written in another format."""


class BuildError(FailedError):
    """A build that stopped: no space, too many unusable images, a lost worker."""


class StorageError(FailedError):
    """An object store that denies something, has not got it, or cannot be reached."""


class RunError(FailedError):
    """A training run that is absent, incomplete, or does not fit what it is asked for."""


def listed(texts: Iterable[str], *, most: int = 10, separator: str = ", ") -> str:
    """The first few of many texts, and how many more there are; for messages."""
    items = list(texts)
    rest = len(items) - most
    return separator.join(items[:most]) + (f" (and {rest} more)" if rest > 0 else "")
