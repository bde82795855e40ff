from __future__ import annotations

import pytest

from leukemia_data.errors import UsageError
from leukemia_models.training.history import EarlyStopping, has_stopped, since_improvement

from ..small_training import epoch_record


def stops_at(stopping: EarlyStopping, **values: list[float | None]) -> int | None:
    """The epoch after which a run with such epochs would have ended."""
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    records = [epoch_record(epoch, **row) for epoch, row in enumerate(rows, start=1)]
    return next((n for n in range(len(records) + 1) if has_stopped(stopping, records[:n])), None)


def test_patience_counts_epochs_since_the_last_improvement() -> None:
    scores = [0.5, 0.6, 0.6, 0.59, 0.61, 0.6, 0.5, 0.61]
    for patience, expected in ((1, 3), (2, 4), (3, 8), (4, None)):
        stopping = EarlyStopping(patience_epochs=patience)
        assert stops_at(stopping, valid_balanced_accuracy=scores) == expected


def test_lower_losses_are_better_and_small_steps_do_not_count() -> None:
    losses = [1.0, 0.95, 0.9, 0.85, 0.79, 0.5]
    assert stops_at(EarlyStopping(patience_epochs=2, metric="loss"), valid_loss=losses) is None
    # 0.95 and 0.9 are not better than 1.0 by more than 0.1; 0.85 is.
    assert stops_at(EarlyStopping(patience_epochs=2, metric="loss", min_delta=0.1), valid_loss=losses) == 3
    assert stops_at(EarlyStopping(patience_epochs=3, metric="loss", min_delta=0.1), valid_loss=losses) is None


def test_one_class_falls_back_to_accuracy() -> None:
    stopping = EarlyStopping(patience_epochs=1)
    assert stops_at(stopping, valid_balanced_accuracy=[None] * 3, valid_accuracy=[0.5, 0.6, 0.6]) == 3


def test_without_a_rule_or_validation_nothing_stops() -> None:
    records = [epoch_record(epoch, valid_loss=None, valid_balanced_accuracy=None) for epoch in range(1, 9)]
    assert not has_stopped(None, records)
    assert not has_stopped(EarlyStopping(patience_epochs=1, metric="loss"), records)


def test_improvements_beat_all_before() -> None:
    assert list(since_improvement([3, 2, None, 2, 5, 1])) == [0, 0, 1, 2, 0]
    assert list(since_improvement([])) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("patience_epochs", 0), ("min_delta", -0.1), ("min_delta", float("nan")), ("metric", "accuracy")],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=field):
        EarlyStopping(**{"patience_epochs": 3, field: value})
