"""Options that say what the folders, names and columns of a source mean; the same for every command that reads one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from leukemia_data.sources.reading_options import SUBJECT_SOURCES, ReadingOptions

_OPTIONS = (
    click.option(
        "--class-level",
        metavar="N|name",
        help="Which folder names the class: 1 the first below SOURCE, -1 the one that holds the image; name: C-NMC "
        "file names.",
    ),
    click.option("--classes", metavar="A,B,...", help="The classes in the order of their labels; others are left out."),
    click.option("--merge", metavar="NEW=A+B", multiple=True, help="Make one class of several, repeatable."),
    click.option(
        "--exclude", metavar="GLOB", multiple=True, help="Pass over files and folders below SOURCE, repeatable."
    ),
    click.option(
        "--subject-pattern", metavar="REGEX", help="Find the subject in a path: the group subject, or the first group."
    ),
    click.option(
        "--subject-from",
        type=click.Choice(SUBJECT_SOURCES),
        help="Subjects are told by C-NMC file names only, by the folders that name no class, or by nothing.",
    ),
    click.option(
        "--label-column", metavar="COLUMN", help="Column of labels in tables; A,B,... is one-hot, none is none."
    ),
    click.option("--subject-column", metavar="COLUMN", help="Column of subjects in tables."),
    click.option("--split-column", metavar="COLUMN", help="Column of splits in tables."),
    click.option("--path-column", metavar="COLUMN", help="Column of image paths in tables."),
    click.option(
        "--split-folders", metavar="train=A,test=B+C", help="The folders that mean train, valid and test; no others do."
    ),
    click.option(
        "--positive", metavar="CLASS", help="Of two classes the one whose recall is the sensitivity; training may ask."
    ),
)
NAMES = frozenset(field.name for field in fields(ReadingOptions))
"""Names of the parameters that these options have."""


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets them together as ``reading``, a ReadingOptions."""

    @functools.wraps(command)
    def with_reading(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the command's own
        texts = {name: kwargs.pop(name) for name in NAMES}
        return command(*args, reading=ReadingOptions.parse(**texts), **kwargs)

    for option in reversed(_OPTIONS):
        with_reading = option(with_reading)
    return with_reading
