"""Subjects that are written in several ways: ``P1`` and ``p1``, ``patient_1`` and ``Patient 01``, ``1`` and ``1.0``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_POINT_ZERO = re.compile(r"(?<=\d)\.0*\Z")
_RUN = re.compile(r"[^\W\d_]+|\d+")
_NUMBER = re.compile(r"([0-9]+)(?:\.0*)?")


def alike_subjects(subjects: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different subjects that may be one person.

    They are the same without case, separators, leading zeros and a last ``.0``. ``1`` and ``H1`` are different, and so
    are ``1_2`` and ``12``.

    Parameters
    ----------
    subjects
        In any order and any number; empty ones are unknown and left out.

    Returns
    -------
    list of tuple of str
        Each group sorted, in the order of their first ones.

    >>> alike_subjects(["P1", "p_01", "H1", "1", "1.0"])
    [('1', '1.0'), ('P1', 'p_01')]
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for subject in sorted(set(subjects) - {""}):
        groups.setdefault(_key(subject), []).append(subject)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _key(subject: str) -> tuple[str, ...]:
    """Its letters in one piece, and each run of digits without leading zeros."""
    text = unicodedata.normalize("NFKC", subject).casefold().strip()
    parts: list[str] = []
    for run in _RUN.findall(_POINT_ZERO.sub("", text)):
        is_number = run[0].isdecimal()
        if not is_number and parts and not parts[-1][0].isdecimal():
            parts[-1] += run
        else:
            parts.append(run.lstrip("0") or "0" if is_number else run)
    return tuple(parts) or (text,)


def subjects_as_numbers(subjects: Sequence[str], unknown: Iterable[str] = ()) -> list[str]:
    """The subjects of one table; where all are whole numbers, without the ``.0`` that programs add to them.

    Parameters
    ----------
    subjects
        Cells of a column.
    unknown
        Those of them that mean no subject.
    """
    whole = {subject: _NUMBER.fullmatch(subject) for subject in set(subjects) - {"", *unknown}}
    if not all(whole.values()):
        return list(subjects)
    number_of = {subject: match[1] for subject, match in whole.items() if match}
    return [number_of.get(subject, subject) for subject in subjects]
