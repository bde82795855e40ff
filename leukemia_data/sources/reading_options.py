"""Options that decide how a source is read, and the choices offered if it can be read in several ways."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

from leukemia_data.errors import AmbiguousSourceError, UsageError
from leukemia_data.records.record import GIVEN_SPLITS

SubjectFrom = Literal["name", "folder", "none"]
SUBJECT_SOURCES = ("name", "folder", "none")
BY_NAME = 0
"""As a class level: C-NMC file names give the class."""
NO_COLUMN = "none"
"""As a column: none is read."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a source is read where that is open.

    Attributes
    ----------
    class_level
        Which folder names the class: 1 is the first below the source, -1 the one that holds the image; 0 stands for
        C-NMC file names. None: inferred, or a question to the user.
    classes
        The classes in the order of their labels; images of others are left out and counted. Empty: all.
    merge
        ``(new, (a, b, ...))``: merges classes. Applied before `classes`.
    exclude
        Patterns of paths to skip, relative to a source or to the start of ids; see :func:`matches_glob`.
    subject_pattern
        Regular expression searched in an image's path below the source; its group ``subject``, or its first group, or
        the whole match is the subject.
    subject_from
        ``name``: C-NMC file names only; ``folder``: the folders that name neither class nor split; ``none``: subjects
        are unknown. None: C-NMC file names, and folders of a known form such as ``patient_03``.
    label_column, subject_column, split_column, path_column
        Columns of tables. Several label columns, separated by commas, are one-hot; ``none`` reads none.
    split_folders
        ``(split, (folder, ...))``: the folders that mean train, valid and test, instead of any other name.
    positive
        The class whose recall is the sensitivity; pixels and labels do not depend on it. None: implied by the names, or
        chosen for training.
    """

    class_level: int | None = None
    classes: tuple[str, ...] = ()
    merge: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exclude: tuple[str, ...] = ()
    subject_pattern: str | None = None
    subject_from: SubjectFrom | None = None
    label_column: str | None = None
    subject_column: str | None = None
    split_column: str | None = None
    path_column: str | None = None
    split_folders: tuple[tuple[str, tuple[str, ...]], ...] = ()
    positive: str | None = None

    def __post_init__(self) -> None:
        if self.subject_pattern is not None:
            compiled_pattern(self.subject_pattern)
        if self.subject_from not in (None, *SUBJECT_SOURCES):
            raise UsageError(f"--subject-from {self.subject_from}: use {', '.join(SUBJECT_SOURCES)}")
        _require_different("--classes", self.classes)
        _require_different("--merge", [old for _, olds in self.merge for old in olds])
        _require_different("--split-folders", [name for _, names in self.split_folders for name in names])
        for split, _ in self.split_folders:
            if split not in GIVEN_SPLITS:
                raise UsageError(f"--split-folders {split}=...: a split is one of {', '.join(GIVEN_SPLITS)}")

    @classmethod
    def parse(
        cls,
        *,
        class_level: int | str | None = None,
        classes: str | Sequence[str] | None = None,
        merge: Iterable[str] = (),
        exclude: Iterable[str] = (),
        split_folders: str | None = None,
        **texts: str | None,
    ) -> ReadingOptions:
        r"""Parse the texts of a command line, where ``\,``, ``\+``, ``\=`` and ``\\`` escape characters of a name.

        Parameters
        ----------
        class_level
            A whole number, or ``name`` for C-NMC file names.
        classes
            ``A,B,...``, or the names themselves.
        merge
            Each ``NEW=A+B``.
        split_folders
            ``train=TRAIN,test=TestA+TestB``.
        exclude, **texts
            As the attributes of the same names.

        Raises
        ------
        UsageError
            If a text has another form.
        """
        return cls(
            class_level=_parse_level(class_level),
            classes=tuple(map(_unescaped, _split_list(classes)) if isinstance(classes, str) else classes or ()),
            merge=tuple(_parse_assignment("--merge", text) for text in merge),
            exclude=tuple(exclude),
            split_folders=tuple(
                _parse_assignment("--split-folders", text) for text in _split_list(split_folders or "")
            ),
            **texts,  # type: ignore[arg-type]  # checked by __post_init__
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReadingOptions:
        """Return the options of :meth:`to_dict`'s result; absent ones keep their defaults.

        Raises
        ------
        ValueError, TypeError
            If a value is of another type than the option.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{name: _frozen(value) for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """Return the given options as JSON values."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _thawed(value) for name, value in given.items() if value not in (None, ())}

    @cached_property
    def command_text(self) -> str:
        """The options in the form of a command line; empty if none is given."""
        texts: list[tuple[str, str]] = []
        for name, value in self.to_dict().items():
            option = "--" + name.replace("_", "-")
            if name == "class_level":
                texts.append((option, "name" if value == BY_NAME else str(value)))
            elif name == "classes":
                texts.append((option, ",".join(_escaped(name, ",") for name in value)))
            elif name == "merge":
                texts.extend((option, _assignment_text(new, olds)) for new, olds in value)
            elif name == "split_folders":
                texts.append((option, ",".join(_assignment_text(split, names) for split, names in value)))
            elif name == "exclude":
                texts.extend((option, pattern) for pattern in value)
            else:
                texts.append((option, str(value)))
        return " ".join(
            f"{option}{'=' if _looks_like_option(text) else ' '}{shlex.quote(text)}" for option, text in texts
        )

    def excluding(self, *paths: str) -> set[str]:
        """Return the patterns that exclude any of several paths of one place."""
        return {pattern for pattern in self.exclude for path in paths if matches_glob(pattern, path)}


@lru_cache(maxsize=64)
def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a subject pattern.

    Raises
    ------
    UsageError
        If it is no regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--subject-pattern {pattern!r}: {error}") from error


def subject_in(pattern: str, path: str) -> str:
    """Return the subject that a pattern finds in a path, empty if none."""
    match = compiled_pattern(pattern).search(path)
    if match is None:
        return ""
    groups = match.groupdict()
    if "subject" in groups:
        return groups["subject"] or ""
    return (match[1] if match.re.groups else match[0]) or ""


def matches_glob(pattern: str, path: str) -> bool:
    """Return whether a pattern matches a path or a folder above it.

    ``*`` and ``?`` match characters of one name, ``**`` any number of folders. A pattern without ``/`` matches every
    file and folder of that name; one with ``/`` or ``./`` before or ``/`` inside is relative to the source.

    >>> matches_glob("Segmented", "Segmented/Benign/1.jpg"), matches_glob("*/old/*.png", "a/old/1.png")
    (True, True)
    """
    return _glob(pattern).match(path) is not None


@lru_cache(maxsize=256)
def _glob(pattern: str) -> re.Pattern[str]:
    pattern = pattern[1:] if pattern.startswith("./") else pattern
    stripped = pattern.strip("/")
    start = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    parts = re.split(r"(/\*\*/|\*\*/|/\*\*|\*\*|\*|\?)", stripped)
    meaning = {"/**/": "/(?:.*/)?", "**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(meaning.get(part, re.escape(part)) for part in parts)
    return re.compile(f"{start}{body}(?:/.*)?\\Z", re.DOTALL)


def _parse_level(level: int | str | None) -> int | None:
    if level is None or isinstance(level, int):
        return level
    if level == "name":
        return BY_NAME
    if not re.fullmatch(r"[+-]?[0-9]{1,4}", level):
        raise UsageError(
            f"--class-level {level!r}: give a number of folders (1: the first below the source, -1: the one that holds "
            "the image), or name for C-NMC file names"
        )
    return int(level)


def _parse_assignment(option: str, text: str) -> tuple[str, tuple[str, ...]]:
    new, *olds = _split_list(text, "=", max_splits=1)
    names = tuple(map(_unescaped, _split_list(olds[0], "+"))) if olds else ()
    if not new or not names:
        example = "NEW=A+B" if option == "--merge" else "train=TRAIN,test=TestA+TestB"
        raise UsageError(f"{option} {text!r}: write it as {example}")
    return _unescaped(new), names


def _split_list(text: str, separator: str = ",", max_splits: int = 0) -> list[str]:
    """Split at unescaped separators; parts stay escaped."""
    parts = re.split(rf"(?<!\\)((?:\\\\)*){re.escape(separator)}", text, maxsplit=max_splits)
    # Every second part holds the backslashes before a separator.
    whole = ["".join(parts[at : at + 2]).strip() for at in range(0, len(parts), 2)]
    return whole if max_splits else [part for part in whole if part]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([,+=\\])", r"\1", text)


def _escaped(text: str, separators: str) -> str:
    return re.sub(rf"[{separators}\\]", r"\\\g<0>", text)


def _require_different(option: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{option}: {', '.join(twice)} is given twice")


def _assignment_text(new: str, olds: Sequence[str]) -> str:
    return f"{_escaped(new, '=')}={'+'.join(_escaped(name, ',+') for name in olds)}"


def _looks_like_option(text: str) -> bool:
    """``-1,1`` does; argument parsers take ``-1`` as a number."""
    return text.startswith("-") and not re.fullmatch(r"-\d+", text)


def _frozen(value: Any) -> Any:  # noqa: ANN401 - JSON values
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _thawed(value: Any) -> Any:  # noqa: ANN401 - nested tuples of texts
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value


class ReadingChoice(NamedTuple):
    """What a source holds if it is read in one way, and the options that choose it.

    Attributes
    ----------
    text
        What it then holds, on one line.
    options
        All options of this choice; with them this question does not arise again.
    given
        The options that were given when the question arose.
    """

    text: str
    options: ReadingOptions
    given: ReadingOptions

    @classmethod
    def of(cls, text: str, given: ReadingOptions, **added: Any) -> ReadingChoice:  # noqa: ANN401 - options of any kind
        """Return the choice of some options added to those given."""
        return cls(text, replace(given, **added), given)

    @property
    def choice(self) -> str:
        """The options to add to the command line."""
        values = {field.name: getattr(self.options, field.name) for field in fields(ReadingOptions)}
        added = {name: value for name, value in values.items() if value != getattr(self.given, name)}
        return ReadingOptions(**added).command_text


def ask_at_once(
    error: AmbiguousSourceError, read: Callable[[ReadingOptions], object], where: str = ""
) -> AmbiguousSourceError:
    """Return the error with complete choices: one that leads to a further question is listed with each answer to it.

    Parameters
    ----------
    error
        The first question, with choices of this module.
    read
        Reads with the options of a choice; AmbiguousSourceError if there is another question.
    where
        Precedes the message.
    """
    complete: list[ReadingChoice] = []
    for reading in _choices(error):
        try:
            read(reading.options)
        except AmbiguousSourceError as further:
            complete.extend(
                ReadingChoice(f"{reading.text}; {each.text}", each.options, reading.given) for each in _choices(further)
            )
        except UsageError:
            # Its options would mean something else.
            continue
        else:
            complete.append(reading)
    return AmbiguousSourceError(f"{where}{error.what}", complete)


def _choices(error: AmbiguousSourceError) -> list[ReadingChoice]:
    return [each for each in error.readings if isinstance(each, ReadingChoice)]
