"""Records are found in earlier caches, whatever their hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leukemia_data.building import prior as record_columns
from leukemia_data.building.prior import ABSENT, RecordColumns, find_kept, load_prior, match_prior
from leukemia_data.sources.source import list_source

from ..helpers import build, image_paths, make_plan, make_source


@pytest.fixture(params=["hashes", "few hashes", "one hash"])
def built(request, tmp_path, monkeypatch) -> Path:
    """A cache; with ids of which many or all have equal hashes, as chance may give once in a million caches."""
    if request.param != "hashes":
        most = 3 if request.param == "few hashes" else 1
        monkeypatch.setattr(
            record_columns, "_hashes", lambda ids: np.array([len(one) * 7 % most for one in ids], np.uint64)
        )
    build(make_source(tmp_path / "source"), tmp_path / "cache", sizes_px=(16,))
    return tmp_path


def test_each_record_is_found_in_its_row(built):
    records = list_source([built / "source"]).records[5:]
    target = make_plan(built / "source", built / "cache", sizes_px=(16,)).targets[0].target
    prior = load_prior(target, [])
    match = match_prior(RecordColumns.of(records), target, prior)
    ids = prior.index.table.id_texts
    assert [ids[row] for row in match.rows_N.tolist()] == [record.record_id for record in records]
    assert match.same_file_N.all()


def test_what_is_not_there_is_absent(built):
    for path in image_paths(built / "source")[:20]:
        path.rename(path.with_name(f"x{path.name}"))
    plan = make_plan(built / "source", built / "cache", sizes_px=(16,))
    [match] = plan.tasks.matches
    is_new = np.array([record.record_id.split("/")[-1].startswith("x") for record in plan.records])
    assert is_new.sum() == 20
    assert ((match.rows_N == ABSENT) == is_new).all()


def test_nothing_is_kept_without_an_earlier_cache():
    columns = RecordColumns.of([])
    assert find_kept(columns, np.empty(0, np.int64), np.array([0]), None) == []
