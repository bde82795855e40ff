"""What a build understands differently from the cache that is there: told before anything is changed.

Images that both hold are compared one by one: the name of their class, their subject, and their split. Beside that the
readings are compared, where the cache has one; caches of version 0.1 have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from leukemia_data.building.prior import ABSENT, PriorMatch
from leukemia_data.building.record_columns import RecordColumns
from leukemia_data.errors import listed
from leukemia_data.sources.reading import Reading, differences

_MAX_CHANGES = 4
_NO_NAME = "none"


def changed_meaning(
    columns: RecordColumns, match: PriorMatch, classes: Sequence[str], reading: Mapping[str, Any] | None
) -> Iterator[str]:
    """Say in sentences what is understood differently.

    Parameters
    ----------
    columns
        The source's records.
    match
        Where the earlier cache holds them.
    classes, reading
        Class names of the source, and how it was understood.
    """
    manifest = match.prior.manifest
    if _is_comparable(manifest.reading) and reading is not None:
        yield from differences(Reading.from_dict(manifest.reading), Reading.from_dict(reading))
    elif list(manifest.classes) != list(classes):
        # The order alone may be another, which no image tells.
        yield f"classes {listed(manifest.classes)}, now {listed(classes)}"
    positions = np.flatnonzero(match.rows_N != ABSENT)
    rows, table = match.rows_N[positions], match.prior.index.table
    before = _names(manifest.classes)[table.labels[rows]]
    yield from _changes("class", before, _names(classes)[columns.labels[positions]])
    for title, column, texts in (
        ("subject", table.subjects, columns.subjects),
        ("split", table.splits, columns.splits),
    ):
        now = texts.values[texts.codes[positions]]
        if not np.array_equal(column[rows], now):
            yield from _changes(title, _decoded(column[rows]), _decoded(now))


def _is_comparable(reading: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether a manifest has a reading that is not one of another release."""
    try:
        return reading is not None and bool(Reading.from_dict(reading))
    except (KeyError, TypeError, ValueError):
        return False


def _names(classes: Sequence[str]) -> NDArray[np.object_]:
    """Class names by label; the last one stands for -1, an unknown label."""
    return np.array([*classes, _NO_NAME], object)


def _decoded(texts: NDArray[np.bytes_]) -> NDArray[np.object_]:
    values, codes = np.unique(texts, return_inverse=True)
    decoded = [value.decode("utf-8", "surrogateescape") or _NO_NAME for value in values.tolist()]
    return np.array(decoded, object)[codes]


def _changes(title: str, before: NDArray[np.object_], now: NDArray[np.object_]) -> Iterator[str]:
    is_other = before != now
    num_changed = int(is_other.sum())
    if not num_changed:
        return
    pairs = Counter(zip(before[is_other].tolist(), now[is_other].tolist(), strict=True))
    shown = listed((f"{old} -> {new} {count:,}" for (old, new), count in pairs.most_common()), most=_MAX_CHANGES)
    yield f"{num_changed:,} of {len(before):,} images that the cache holds get another {title}: {shown}"
