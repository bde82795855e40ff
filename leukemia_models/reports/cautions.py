"""What keeps numbers from saying how a network does on new patients: one line each, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from leukemia_data.splitting.leaks import LeakCheck
from leukemia_models.judging.resampling import ENOUGH_SUBJECTS
from leukemia_models.reports.split_summary import SplitSummary

PUBLISHED_RANGE = "C-NMC 2019: 0.83 to 0.91 weighted F1"
"""What is published for unseen patients."""
ORDER = (
    "mixed",
    "started",
    "labels",
    "other",
    "collapsed",
    "unknown",
    "origin",
    "namesakes",
    "doubtful",
    "alike",
    "few",
    "calibration",
)
"""Kinds of cautions, the most important first."""


@dataclass(frozen=True, slots=True)
class Caution:
    """One line that speaks against numbers.

    Attributes
    ----------
    kind
        One of :data:`ORDER`. Several parts of one run have the same cautions of the same kinds, in other numbers.
    text
        A sentence.
    """

    kind: str
    text: str


def split_cautions(split: SplitSummary, classes: Sequence[str]) -> Iterator[Caution]:
    """Yield what speaks against a split and its evaluated part, in any order."""
    leaks, counts = split.leaks, split.parts[split.judged].subjects_per_class
    if leaks.shared_subjects or leaks.shared_images or leaks.near_images:
        yield Caution(
            "mixed",
            "PATIENT-MIXED: cells of the same patients train and are evaluated, which says nothing about new patients "
            f"({PUBLISHED_RANGE}).",
        )
    if leaks.start_subjects or leaks.start_images:
        yield Caution(
            "started",
            "PATIENT-MIXED: the weights that the training started from have seen validation or test subjects, which "
            f"says nothing about new patients ({PUBLISHED_RANGE}).",
        )
    yield from start_cautions(leaks)
    if leaks.contradictory_images:
        yield Caution("labels", f"{leaks.contradictory_images} groups of identical images have several labels.")
    if leaks.near_contradictions:
        yield Caution("labels", f"{leaks.near_contradictions} groups of near-identical images have several labels.")
    if leaks.doubtful_subjects:
        yield Caution(
            "doubtful",
            f"{leaks.doubtful_subjects} subjects have images of several classes: if they are not people, patients may "
            "be on both sides; a build with --subject-column, --subject-from or --subject-pattern confirms them.",
        )
    if leaks.alike_subjects:
        yield Caution(
            "alike",
            f"{leaks.alike_subjects} subjects are written in several ways, such as P1 and p1: patients may be on both "
            "sides; a build with --subject-column, --subject-from or --subject-pattern confirms them.",
        )
    if counts is None or leaks.unknown_subjects:
        whose = "the evaluated images" if counts is None else "some other images"
        yield Caution("unknown", f"The subjects of {whose} are unknown: the same patients may train and be evaluated.")
    if counts is not None and min(counts) < ENOUGH_SUBJECTS:
        listed = " and ".join(f"{count} of class {name!r}" for count, name in zip(counts, classes, strict=True))
        yield Caution("few", f"Few subjects, {listed}: other patients can give quite different numbers.")


def start_cautions(leaks: LeakCheck) -> Iterator[Caution]:
    """Yield what may be wrong with the weights that a training starts from, and cannot be known."""
    if leaks.unknown_start:
        yield Caution("origin", "Start weights of unknown origin: whether they saw test subjects is not known.")
    if leaks.start_namesakes:
        yield Caution(
            "namesakes",
            f"{leaks.start_namesakes} validation or test subjects have the name of one that the start weights saw in "
            "another source: if these are the same people, the numbers say nothing about new patients.",
        )


def sorted_cautions(found: Sequence[Caution]) -> list[Caution]:
    """Return cautions once each, the most important first."""
    return sorted(dict.fromkeys(found), key=lambda caution: ORDER.index(caution.kind))


def cautions_of_parts(found: Mapping[str, Sequence[Caution]]) -> list[str]:
    """Return the cautions of several evaluated parts of one run, each kind once.

    Parameters
    ----------
    found
        Cautions of each part, the part to quote last: where parts differ in their numbers alone, its words are taken.

    Returns
    -------
    list of str
        With the part's name in front where only some parts have that caution.
    """
    lines: dict[str, str] = {}
    for caution in sorted_cautions([caution for part in reversed(list(found)) for caution in found[part]]):
        having = [part for part in found if _key(caution) in map(_key, found[part])]
        text = caution.text if len(having) == len(found) else f"{', '.join(having)}: {caution.text}"
        lines.setdefault(_key(caution), text)
    return list(lines.values())


def _key(caution: Caution) -> str:
    """What makes two cautions of different parts the same one."""
    return caution.text if caution.kind == "other" else caution.kind
