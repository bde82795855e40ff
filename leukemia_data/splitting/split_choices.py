"""The splits that a table of samples allows, tried one by one, and the one message that names them.

A refused or leaking split is answered with commands that work. Each was tried on these
samples, so that following the message leads to no further refusal.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from leukemia_data.errors import UsageError
from leukemia_data.records.record import NO_FOLD, UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.split_spec import SPLIT_NAMES, SplitCodes, SplitSpec

_TRAIN, _VALID = SPLIT_NAMES.index("train"), SPLIT_NAMES.index("valid")
_MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SplitChoice:
    """A split that can be trained on, and what is on two sides of it."""

    spec: SplitSpec
    leaks: LeakCheck

    @property
    def options(self) -> str:
        """The options of ``ltrain`` that train on it.

        >>> SplitChoice(SplitSpec("given", with_valid=True), LeakCheck(0, 0, 36)).options
        '--split given --valid-from-train 0.15 --allow-leak'
        """
        spec, share = self.spec, ""
        if spec.kind == "given" and spec.with_valid:
            spec, share = replace(spec, with_valid=False), f" --valid-from-train {spec.valid_share:g}"
        return f"--split {shlex.quote(str(spec))}{share}{'' if self.leaks.is_disjoint else ' --allow-leak'}"

    @property
    def text(self) -> str:
        """The command and its stamp."""
        return f"`ltrain ... {self.options}` (stamped {self.leaks.stamp})"


def working_choices(
    asked: SplitSpec | None,
    table: SampleTable,
    assign: Callable[[SplitSpec], SplitCodes],
    subjects: SubjectsFound | None = None,
    *,
    num_classes: int = 0,
    needs_valid: bool = False,
) -> list[SplitChoice]:
    """Try the splits that these samples may allow.

    Parameters
    ----------
    asked
        What the user wanted; the first choice if it works.
    table
        All samples.
    assign
        Puts the samples into the parts of a split, or raises UsageError.
    subjects
        How the source's subjects were read.
    num_classes
        Each of them must have training images; 0 for as many as there are labels.
    needs_valid
        Whether there must be images to validate by.

    Returns
    -------
    list of SplitChoice
        Subject-disjoint ones before patient-mixed ones.
    """
    found: list[SplitChoice] = []
    kinds: set[str] = set()
    labels = set(range(num_classes)) if num_classes else set(table.labels.tolist()) - {UNKNOWN_LABEL}
    for spec in dict.fromkeys([*([asked] if asked is not None else []), *_candidates(table)]):
        if spec.kind in kinds:
            continue
        try:
            codes = assign(spec)
        except UsageError:
            continue
        if set(table.labels[codes == _TRAIN].tolist()) < labels or (needs_valid and not (codes == _VALID).any()):
            continue
        kinds.add(spec.kind)
        found.append(SplitChoice(spec, check_leaks(codes, table, subjects)))
    return sorted(found, key=lambda choice: (choice.spec != asked, not choice.leaks.is_disjoint))


def _candidates(table: SampleTable) -> Iterator[SplitSpec]:
    """Splits worth trying, the better one of a kind first."""
    yield SplitSpec("subject")
    yield SplitSpec("fold", 1, 2)
    yield SplitSpec("given")
    yield SplitSpec("given", with_valid=True)
    folds = np.unique(table.folds[table.folds != NO_FOLD])
    if len(folds):
        yield SplitSpec("official", int(folds[0]), with_valid=True)
        yield SplitSpec("official", int(folds[0]))
    yield SplitSpec("image")


def choices_text(choices: Sequence[SplitChoice], table: SampleTable, subjects: SubjectsFound | None = None) -> str:
    """The splits that work in one sentence, and what makes better ones possible in another.

    Parameters
    ----------
    choices
        From :func:`working_choices`.
    table, subjects
        The samples, and how their subjects were read.
    """
    shown = [choice for choice in choices if choice.spec.kind != "fold" or len(choices) < _MAX_SHOWN][:_MAX_SHOWN]
    said = [f"What works here: {' or '.join(choice.text for choice in shown)}" if shown else _NOTHING]
    if not all(choice.leaks.is_disjoint for choice in shown):
        said.append("Numbers stamped PATIENT-MIXED say nothing about new patients")
    if not any(choice.leaks.is_disjoint for choice in choices):
        said.extend(_remedies(table, subjects))
    return ". ".join(said)


_NOTHING = "No split works here: training takes at least three labelled images of each class"


def _remedies(table: SampleTable, subjects: SubjectsFound | None) -> Iterator[str]:
    """What a user can do about samples of which no split is subject-disjoint."""
    if (table.subjects == b"").any():
        yield (
            "For numbers about new patients say whose cells they are: build again with --subject-from, "
            "--subject-pattern or --subject-column; `ldata recover-subjects` finds those of renumbered files"
        )
    elif subjects is not None and not subjects.is_confirmed and (subjects.num_several or subjects.num_alike):
        yield (
            "If these subjects are people all the same, build again with --subject-from, --subject-pattern or "
            "--subject-column, which confirms them"
        )
    else:
        yield "`ldata audit` shows what is on both sides"
