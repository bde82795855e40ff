"""Parts held out as ``test``: the source's own folds, and named subjects; the splits of a cross-validation.

Held-out images are evaluated once, and used for no choice of epoch, threshold or network.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError, listed
from leukemia_data.records.record import NO_FOLD, UNKNOWN_LABEL
from leukemia_data.records.sample_table import SampleTable, decode_texts, encode_text
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes, SplitSpec, with_valid_share
from leukemia_data.splitting.subject_groups import linked_groups, majority_labels

OFFICIAL = "official"
LEAVE_ONE_SUBJECT_OUT = "loso"
_TRAIN, _TEST = SPLIT_NAMES.index("train"), SPLIT_NAMES.index("test")
_MAX_NEAR = 3
_DIGITS = re.compile(r"([0-9]+)")


def official_codes(spec: SplitSpec, table: SampleTable) -> SplitCodes:
    """Hold out one fold of the source; images without a fold are unused.

    Raises
    ------
    UsageError
        If the source has no folds, not this one, or only one.
    """
    folds = _official_folds(table, f"split {spec}")
    if spec.fold not in folds:
        raise UsageError(f"split {spec}: the source has no fold {spec.fold}; it has {_numbers(folds)}")
    codes = np.full(len(table), UNUSED, np.int8)
    codes[table.folds != NO_FOLD] = _TRAIN
    codes[table.folds == spec.fold] = _TEST
    return codes


def leave_out_codes(spec: SplitSpec, table: SampleTable) -> SplitCodes:
    """Hold out the named subjects and those tied to them by identical or near-identical images.

    All samples have a label and a known subject.

    Raises
    ------
    UsageError
        If a subject has no sample here, or nothing is left to train on.
    """
    wanted = {encode_text(subject) for subject in spec.subjects}
    present = set(table.subjects.tolist())
    absent = sorted(decode_texts(np.array(list(wanted - present), np.bytes_)))
    if absent:
        raise UsageError(_absent_text(spec, absent, decode_texts(np.unique(table.subjects))))
    groups = linked_groups(table)
    is_named = np.array([subject in wanted for subject in table.subjects.tolist()])
    is_held_out = np.isin(groups, groups[is_named])
    if is_held_out.all():
        raise UsageError(
            f"split {spec}: all subjects are left out, including those tied to them by identical or near-identical "
            "images: none is left to train on"
        )
    return np.where(is_held_out, _TEST, _TRAIN).astype(np.int8)


def fold_specs(
    text: str, table: SampleTable, *, valid_share: float = 0.0, class_names: Sequence[str] = ()
) -> list[SplitSpec]:
    """Return the splits of a cross-validation, one per fold; together they hold out every sample of the folds once.

    Parameters
    ----------
    text
        A number of folds such as ``5`` (whole subjects, similar sizes), ``official`` (the source's own folds) or
        ``loso`` (leave one subject out; people tied by identical or near-identical images leave together).
    table
        All samples of a cache.
    valid_share
        Fraction of each fold's training images that validates, up to 0.5; 0 for none.
    class_names
        For messages; labels are shown without them.

    Returns
    -------
    list of SplitSpec
        In the order of the folds; for ``loso`` by class and then by the subjects' names, numbers by value.

    Raises
    ------
    UsageError
        If the text has another form, or the source does not allow such folds.
    """
    specs = _fold_specs(text, table, class_names)
    return [with_valid_share(spec, valid_share) for spec in specs] if valid_share else specs


def _fold_specs(text: str, table: SampleTable, class_names: Sequence[str]) -> list[SplitSpec]:
    if text == LEAVE_ONE_SUBJECT_OUT:
        # Found in the whole table, as for the splits of the folds.
        _ = table.near_groups
    known = table.take(np.flatnonzero(table.labels != UNKNOWN_LABEL))
    if text == OFFICIAL:
        return [SplitSpec("official", fold) for fold in _official_folds(known, f"folds {text}")]
    if text == LEAVE_ONE_SUBJECT_OUT:
        return [SplitSpec("leave-out", subjects=subjects) for subjects in _subject_groups(known, class_names)]
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < 2:
        raise UsageError(
            f"unknown folds {text!r}: use a number of at least 2, {OFFICIAL} (the source's own folds) or "
            f"{LEAVE_ONE_SUBJECT_OUT} (leave one subject out)"
        )
    number = int(text)
    return [SplitSpec("test-fold", fold, number) for fold in range(1, number + 1)]


def require_subjects(what: str, table: SampleTable) -> None:
    """Raise UsageError if the subject of any sample is unknown."""
    num_unknown = int((table.subjects == b"").sum())
    if num_unknown:
        raise UsageError(
            f"{what} needs to know whose cell each image is; {num_unknown} of {len(table)} images do not say"
        )


def _official_folds(table: SampleTable, what: str) -> list[int]:
    folds: list[int] = np.unique(table.folds[table.folds != NO_FOLD]).tolist()
    if not folds:
        raise UsageError(
            f"{what}: the source has no folds (folders fold_0, fold_1, ...); use a number of folds, such as "
            "test-fold:1/5, or 5 for a cross-validation"
        )
    if len(folds) == 1:
        raise UsageError(
            f"{what}: this cache has {_numbers(folds)} only, so nothing is left to train on; build it from all folds, "
            "or divide it by subject: test-fold:1/5"
        )
    return folds


def _numbers(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {listed(map(str, folds))}"


def _absent_text(spec: SplitSpec, absent: Sequence[str], subjects: Sequence[str]) -> str:
    """Message on absent subjects, with similar names."""
    by_folded = {subject.casefold(): subject for subject in subjects}
    parts = []
    for name in absent[:_MAX_NEAR]:
        near = [by_folded[folded] for folded in difflib.get_close_matches(name.casefold(), by_folded, n=_MAX_NEAR)]
        parts.append(f"{name!r}{f' (did you mean {listed(near)}?)' if near else ''}")
    more = f" and {len(absent) - _MAX_NEAR} more" if len(absent) > _MAX_NEAR else ""
    return (
        f"split {spec.kind}: no labelled image is of subject {', '.join(parts)}{more}; "
        f"the subjects are {listed(sorted(subjects, key=_natural), most=12)}"
    )


def _subject_groups(table: SampleTable, class_names: Sequence[str]) -> list[tuple[str, ...]]:
    """The people of each group that leaves together, by class and name."""
    if len(table) == 0:
        raise UsageError(f"folds {LEAVE_ONE_SUBJECT_OUT}: no image of this cache has a label")
    require_subjects(f"folds {LEAVE_ONE_SUBJECT_OUT}", table)
    groups = linked_groups(table)
    label_of_group = majority_labels(groups, table.labels)
    _require_two_groups(label_of_group, class_names)
    people: list[set[str]] = [set() for _ in label_of_group]
    for group, subject in zip(groups.tolist(), table.subject_texts, strict=True):
        people[group].add(subject)
    named = [(int(label), sorted(names, key=_natural)) for label, names in zip(label_of_group, people, strict=True)]
    named.sort(key=lambda item: (item[0], list(map(_natural, item[1]))))
    return [tuple(names) for _, names in named]


def _require_two_groups(label_of_group: NDArray[np.int64], class_names: Sequence[str]) -> None:
    for label, count in zip(*np.unique(label_of_group, return_counts=True), strict=True):
        if count < 2:
            name = repr(class_names[label]) if label < len(class_names) else str(label)
            raise UsageError(
                f"folds {LEAVE_ONE_SUBJECT_OUT}: class {name} has one independent subject, so leaving it out leaves "
                "none of the class to train on"
            )


def _natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key that puts 9 before 10."""
    parts = _DIGITS.split(text)
    return [(0, int(part)) if part.isascii() and part.isdecimal() else (1, part) for part in parts if part]
