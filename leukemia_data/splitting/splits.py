"""Which samples train, which validate, which test: pure functions of the sample table and a seed.

The subject is the unit. All splits but ``image``, ``given`` and ``official`` keep the cells of one person on one side,
and treat people who share identical or near-identical images as one (the published set has 99 pairs of identical
images across patient ids).
``image`` splits by image and is patient-mixed; ``given`` and ``official`` take what the source brought. Whatever was
asked for, :func:`~leukemia_data.splitting.leaks.check_leaks` looks at the result and says what it is.
:mod:`~leukemia_data.splitting.split_spec` lists the names of splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from leukemia_data.errors import UsageError
from leukemia_data.samples.record import UNKNOWN_LABEL
from leukemia_data.samples.sample_table import SampleTable, decode_texts
from leukemia_data.splitting.held_out import leave_out_codes, official_codes, require_subjects
from leukemia_data.splitting.split_draw import assign_groups
from leukemia_data.splitting.split_spec import SPLIT_NAMES, UNUSED, SplitCodes, SplitSpec
from leukemia_data.splitting.subject_groups import linked_groups, numbered_by_content

FRACTIONS = (0.75, 0.15, 0.10)
VALID_SHARE = 0.15
"""Share of what a held-out split trains on that ``+valid`` takes away to validate by."""
_TRAIN, _VALID, _TEST = range(len(SPLIT_NAMES))
_DRAW_STREAM = len(SPLIT_NAMES)
_VALID_STREAM = _DRAW_STREAM + 1
_UNITS = {"image": "images"}


def assign_split(spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str] = ()) -> SplitCodes:
    """Put every sample into a split.

    Parameters
    ----------
    spec
        What kind of split.
    table
        All samples of a cache.
    seed
        Decides among equally good splits; ``given``, ``official`` and ``leave-out`` need none, but for ``+valid``.
    class_names
        For messages; without them labels are shown.

    Returns
    -------
    ndarray of shape (n,), int8
        Position in :data:`~leukemia_data.splitting.split_spec.SPLIT_NAMES`, or UNUSED. ``subject`` and ``image`` aim at
        75 / 15 / 10 % of each class's images; ``fold:K/N`` validates on part K of N and trains on the rest;
        ``test-fold:K/N`` makes the same parts and tests on part K. ``+valid`` aims at 15 % of each class's images that
        are not held out.

    Raises
    ------
    UsageError
        If the samples cannot be split so: unknown subjects, no given split, no such fold or subject, fewer subjects
        of a class than parts.
    """
    if spec.kind == "given":
        return _given_codes(table)
    if spec.kind not in ("image", "official"):
        # Of the whole table, once: parts of it take over what was found.
        _ = table.near_groups
    codes = np.full(len(table), UNUSED, np.int8)
    labelled = np.flatnonzero(table.labels != UNKNOWN_LABEL)
    if len(labelled) == 0:
        raise UsageError(f"split {spec}: no image of this cache has a label")
    # Without a copy of everything where, as nearly always, that is everything.
    known = table if len(labelled) == len(table) else table.take(labelled)
    if spec.kind not in ("image", "official"):
        require_subjects(f"split {spec}", known)
    codes[labelled] = _codes_of_labelled(spec, known, seed, class_names)
    if spec.with_valid:
        _draw_valid(codes, spec, table, seed, class_names)
    return codes


def _codes_of_labelled(spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str]) -> SplitCodes:
    if spec.kind == "official":
        return official_codes(spec, table)
    if spec.kind == "leave-out":
        return leave_out_codes(spec, table)
    is_fold = spec.kind in ("fold", "test-fold")
    fractions = (1 / spec.num_folds,) * spec.num_folds if is_fold else FRACTIONS
    groups = np.arange(len(table)) if spec.kind == "image" else linked_groups(table)
    too_few = partial(_too_few, spec, class_names, len(fractions), _UNITS.get(spec.kind, "independent subjects"))
    parts = assign_groups(
        numbered_by_content(groups, table), table.labels, fractions, _generator(seed, _DRAW_STREAM), too_few
    )
    if not is_fold:
        return parts
    return np.where(parts == spec.fold - 1, _TEST if spec.holds_out else _VALID, _TRAIN).astype(np.int8)


def _draw_valid(codes: SplitCodes, spec: SplitSpec, table: SampleTable, seed: int, class_names: Sequence[str]) -> None:
    """Turn some of the subjects that train into validation, in place."""
    training = np.flatnonzero(codes == _TRAIN)
    rest = table.take(training)
    require_subjects(f"split {spec}", rest)
    groups = numbered_by_content(linked_groups(rest), rest)
    too_few = partial(_too_few, spec, class_names, 2, "independent subjects beside those held out")
    fractions = (1 - VALID_SHARE, VALID_SHARE)
    parts = assign_groups(groups, rest.labels, fractions, _generator(seed, _VALID_STREAM), too_few)
    codes[training[parts == 1]] = _VALID


def _too_few(
    spec: SplitSpec, class_names: Sequence[str], num_parts: int, unit: str, label: int, num_groups: int
) -> str:
    name = repr(class_names[label]) if label < len(class_names) else str(label)
    return f"split {spec}: class {name} has {num_groups} {unit}, too few for {num_parts} parts"


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))


def split_numbers(codes: SplitCodes, name: str) -> NDArray[np.int64]:
    """Sample numbers of one split, ascending; ``all`` means every sample.

    Raises
    ------
    UsageError
        If there is no split of that name.
    """
    if name == "all":
        return np.arange(len(codes), dtype=np.int64)
    if name not in SPLIT_NAMES:
        raise UsageError(f"unknown part {name!r}: use {', '.join(SPLIT_NAMES)} or all")
    return np.flatnonzero(codes == SPLIT_NAMES.index(name)).astype(np.int64)


def _given_codes(table: SampleTable) -> SplitCodes:
    names = decode_texts(table.splits)
    codes = np.array([SPLIT_NAMES.index(name) if name in SPLIT_NAMES else UNUSED for name in names], np.int8)
    unlabelled = (codes < _TEST) & (table.labels == UNKNOWN_LABEL)
    codes[unlabelled] = UNUSED
    missing = [name for n, name in enumerate(SPLIT_NAMES[:2]) if not (codes == n).any()]
    if missing:
        raise UsageError(
            f"split given: the source brought no {' and no '.join(missing)} images with a label; "
            "use --split subject, fold:K/N or image"
        )
    return codes
