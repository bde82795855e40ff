"""Splits of a sample table, and those that it allows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.records.record import NO_FOLD, UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable, decode_texts
from leukemia_data.sources.reading import SubjectsFound
from leukemia_data.splitting.held_out import (
    LEAVE_ONE_SUBJECT_OUT,
    OFFICIAL,
    fold_specs,
    leave_out_codes,
    official_codes,
    require_subjects,
)
from leukemia_data.splitting.leaks import LeakCheck, check_leaks
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes, SplitSpec
from leukemia_data.splitting.subject_groups import assign_groups, linked_groups, numbered_by_content

_TRAIN, _VALID = SPLIT_NAMES.index("train"), SPLIT_NAMES.index("valid")
_MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SplitChoice:
    """A possible split with its leak check."""

    spec: SplitSpec
    leaks: LeakCheck

    @property
    def options(self) -> str:
        """The options of ``ltrain`` for this split.

        >>> SplitChoice(SplitSpec("given", with_valid=True), LeakCheck(0, 0, 36)).options
        '--split given --valid-from-train 0.15 --allow-leak'
        """
        spec, option = self.spec, ""
        if spec.kind == "given" and spec.with_valid:
            spec, option = replace(spec, with_valid=False), f" --valid-from-train {spec.valid_share:g}"
        return f"--split {shlex.quote(str(spec))}{option}{'' if self.leaks.is_disjoint else ' --allow-leak'}"

    @property
    def text(self) -> str:
        """The command with the stamp of its results."""
        return f"`ltrain ... {self.options}` (stamped {self.leaks.stamp})"


def _candidates(table: SampleTable) -> Iterator[SplitSpec]:
    """Splits to try, the better one of a kind first."""
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
    """Return a sentence with the possible splits, and one with what would make better ones possible."""
    shown = [choice for choice in choices if choice.spec.kind != "fold" or len(choices) < _MAX_SHOWN][:_MAX_SHOWN]
    sentences = [f"What works here: {' or '.join(choice.text for choice in shown)}" if shown else _NOTHING]
    if not all(choice.leaks.is_disjoint for choice in shown):
        sentences.append("Numbers stamped PATIENT-MIXED say nothing about new patients")
    if not any(choice.leaks.is_disjoint for choice in choices):
        sentences.append(_remedy(table, subjects))
    return ". ".join(sentences)


_NOTHING = "No split works here: training takes at least three labelled images of each class"


def _remedy(table: SampleTable, subjects: SubjectsFound | None) -> str:
    """What a user can do if no split of the samples is subject-disjoint."""
    if (table.subjects == b"").any():
        return (
            "For numbers about new patients say whose cells they are: build again with --subject-from, "
            "--subject-pattern or --subject-column; `ldata recover-subjects` finds those of renumbered files"
        )
    if subjects is not None and not subjects.is_confirmed and (subjects.num_several or subjects.num_alike):
        return (
            "If these subjects are people all the same, build again with --subject-from, --subject-pattern or "
            "--subject-column, which confirms them"
        )
    return "`ldata audit` shows what is on both sides"


FRACTIONS = (0.75, 0.15, 0.10)
_TEST = SPLIT_NAMES.index("test")
_DRAW_STREAM = len(SPLIT_NAMES)
_VALID_STREAM = _DRAW_STREAM + 1


def assign_split(
    spec: SplitSpec,
    table: SampleTable,
    seed: int,
    class_names: Sequence[str] = (),
    subjects: SubjectsFound | None = None,
) -> SplitCodes:
    """Assign every sample to a split.

    Parameters
    ----------
    spec
        The kind of split.
    table
        All samples of a cache.
    seed
        Chooses among equally good splits; ``given``, ``official`` and ``leave-out`` need none, except for ``+valid``.
    class_names
        For messages; labels are shown without them.
    subjects
        How the source's subjects were read; for messages.

    Returns
    -------
    ndarray of shape (n,), int8
        Position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED. ``subject`` and ``image`` aim
        at 75 / 15 / 10 % of each class's images; ``fold:K/N`` validates on part K of N and trains on the rest;
        ``test-fold:K/N`` makes the same parts and tests on part K. ``+valid`` aims at 15 % of each class's images
        that are not held out, or at the given fraction.

    Raises
    ------
    UsageError
        If the samples do not allow the split: unknown subjects, no given split, no such fold or subject, fewer
        subjects of a class than parts. The message ends with the splits that these samples allow.
    """
    try:
        return _assigned(spec, table, seed, class_names)
    except UsageError as error:
        choices = split_choices(spec, table, seed, subjects, num_classes=len(class_names))
        raise UsageError(f"{error}. {choices_text(choices, table, subjects)}") from None


def split_choices(
    spec: SplitSpec | None,
    table: SampleTable,
    seed: int,
    subjects: SubjectsFound | None = None,
    *,
    num_classes: int = 0,
    needs_valid: bool = False,
) -> list[SplitChoice]:
    """Return the possible splits: `spec` if it is one, then subject-disjoint ones, then patient-mixed ones.

    Parameters
    ----------
    spec
        The requested split, or None.
    table, seed, subjects
        As for :func:`assign_split`.
    num_classes
        Number of classes that must have training images; 0 for all labels.
    needs_valid
        Whether there must be validation images.
    """
    found: list[SplitChoice] = []
    labels = set(range(num_classes)) if num_classes else set(table.labels.tolist()) - {UNKNOWN_LABEL}
    for candidate in dict.fromkeys([*([spec] if spec is not None else []), *_candidates(table)]):
        if any(choice.spec.kind == candidate.kind for choice in found):
            continue
        try:
            codes = _assigned(candidate, table, seed, ())
        except UsageError:
            continue
        if set(table.labels[codes == _TRAIN].tolist()) < labels or (needs_valid and not (codes == _VALID).any()):
            continue
        found.append(SplitChoice(candidate, check_leaks(codes, table, subjects)))
    return sorted(found, key=lambda choice: (choice.spec != spec, not choice.leaks.is_disjoint))


def fold_splits(
    text: str,
    table: SampleTable,
    seed: int,
    class_names: Sequence[str] = (),
    subjects: SubjectsFound | None = None,
    *,
    valid_share: float = 0.0,
) -> list[SplitSpec]:
    """Return the splits of a cross-validation, see :func:`~leukemia_data.splitting.held_out.fold_specs`.

    Parameters
    ----------
    text, valid_share
        As for that function.
    table, seed, class_names, subjects
        As for :func:`assign_split`.

    Raises
    ------
    UsageError
        If the source does not allow such folds. The message ends with the splits that it allows.
    """
    try:
        return fold_specs(text, table, valid_share=valid_share, class_names=class_names)
    except UsageError as error:
        if text not in (OFFICIAL, LEAVE_ONE_SUBJECT_OUT):
            raise
        choices = split_choices(None, table, seed, subjects, num_classes=len(class_names))
        raise UsageError(f"{error}. {choices_text(choices, table, subjects)}") from None


def _assigned(spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str]) -> SplitCodes:
    # Found once in the whole table; its parts keep them.
    _ = table.near_groups
    if spec.kind == "given":
        codes = _given_codes(spec, table)
    else:
        codes = np.full(len(table), UNUSED, np.int8)
        labelled = np.flatnonzero(table.labels != UNKNOWN_LABEL)
        if len(labelled) == 0:
            raise UsageError(f"split {spec}: no image of this cache has a label")
        # Usually all are: no copy then.
        known = table if len(labelled) == len(table) else table.take(labelled)
        codes[labelled] = _codes_of_labelled(spec, known, seed, class_names)
    if spec.with_valid:
        _draw_valid(codes, spec, table, seed, class_names)
    return codes


def _codes_of_labelled(spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str]) -> SplitCodes:
    if spec.kind == "official":
        return official_codes(spec, table)
    is_image = spec.kind == "image"
    if not is_image:
        require_subjects(f"split {spec}", table)
    if spec.kind == "leave-out":
        return leave_out_codes(spec, table)
    is_fold = spec.kind in ("fold", "test-fold")
    fractions = (1 / spec.num_folds,) * spec.num_folds if is_fold else FRACTIONS
    groups = numbered_by_content(np.arange(len(table)) if is_image else linked_groups(table), table)
    too_few = partial(_too_few, spec, class_names, len(fractions), "images" if is_image else "independent subjects")
    parts = assign_groups(groups, table.labels, fractions, _generator(seed, _DRAW_STREAM), too_few)
    if not is_fold:
        return parts
    return np.where(parts == spec.fold - 1, _TEST if spec.holds_out else _VALID, _TRAIN).astype(np.int8)


def _draw_valid(codes: SplitCodes, spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str]) -> None:
    """Move some subjects from training to validation, in place; images of unknown subjects count singly."""
    training = np.flatnonzero(codes == _TRAIN)
    rest = table.take(training)
    if spec.kind != "given":
        require_subjects(f"split {spec}", rest)
    groups = numbered_by_content(linked_groups(rest), rest)
    unit = "independent subjects to train on" if spec.kind == "given" else "independent subjects beside those held out"
    too_few = partial(_too_few, spec, class_names, 2, unit)
    fractions = (1 - spec.valid_share, spec.valid_share)
    parts = assign_groups(groups, rest.labels, fractions, _generator(seed, _VALID_STREAM), too_few)
    codes[training[parts == 1]] = _VALID


def _too_few(
    spec: SplitSpec, class_names: Sequence[str], num_parts: int, unit: str, label: int, num_groups: int
) -> str:
    name = repr(class_names[label]) if label < len(class_names) else str(label)
    return f"split {spec}: class {name} has {num_groups} {unit}, too few for {num_parts} parts"


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def split_indices(codes: SplitCodes, name: str) -> NDArray[np.int64]:
    """Return the sample indices of one split, ascending; ``all`` means every sample.

    Raises
    ------
    UsageError
        If there is no split of that name, or `codes` is not the result of :func:`assign_split`.
    """
    codes = np.asarray(codes)
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise UsageError(f"codes must be what assign_split returns, got {codes.dtype} of shape {codes.shape}")
    if name == "all":
        return np.arange(len(codes), dtype=np.int64)
    if name not in SPLIT_NAMES:
        raise UsageError(f"unknown part {name!r}: use {', '.join(SPLIT_NAMES)} or all")
    return np.flatnonzero(codes == SPLIT_NAMES.index(name)).astype(np.int64)


def _given_codes(spec: SplitSpec, table: SampleTable) -> SplitCodes:
    names = decode_texts(table.splits)
    codes = np.array([SPLIT_NAMES.index(name) if name in SPLIT_NAMES else UNUSED for name in names], np.int8)
    unlabelled = (codes < _TEST) & (table.labels == UNKNOWN_LABEL)
    codes[unlabelled] = UNUSED
    num_train, num_valid = (int((codes == code).sum()) for code in (_TRAIN, _VALID))
    missing = [name for name, count in (("train", num_train), ("valid", num_valid or spec.with_valid)) if not count]
    if missing:
        raise UsageError(f"split {spec}: the source has no {' and no '.join(missing)} images with a label")
    if spec.with_valid and num_valid:
        raise UsageError(
            f"split {spec}: the source has {num_valid:,} validation images, so none are drawn from the training images"
        )
    return codes
