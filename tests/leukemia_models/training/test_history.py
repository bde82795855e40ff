from __future__ import annotations

from dataclasses import replace

from leukemia_models.training.history import EpochRecord, TrainHistory

FIRST = EpochRecord(
    epoch=1,
    lr=0.1,
    train_loss=0.7,
    train_accuracy=0.6,
    valid_loss=0.6,
    valid_accuracy=0.7,
    valid_balanced_accuracy=0.6,
    valid_weighted_f1=0.6,
    valid_auroc=0.7,
    seconds=2.0,
    images_per_s=50.0,
)


def test_best_has_the_highest_balanced_accuracy_not_accuracy() -> None:
    second = replace(FIRST, epoch=2, valid_accuracy=0.9, valid_balanced_accuracy=0.5, valid_loss=0.1)
    third = replace(FIRST, epoch=3, valid_balanced_accuracy=0.61, valid_loss=0.9)
    assert TrainHistory((FIRST, second, third)).best == third


def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch() -> None:
    lower = replace(FIRST, epoch=2, valid_loss=0.5)
    again = replace(lower, epoch=3)
    assert TrainHistory((FIRST, lower, again)).best == lower


def test_one_class_validation_falls_back_to_accuracy() -> None:
    first = replace(FIRST, valid_balanced_accuracy=None)
    second = replace(first, epoch=2, valid_accuracy=0.8)
    assert TrainHistory((first, second, replace(first, epoch=3))).best == second


def test_without_validation_the_last_is_best() -> None:
    first = replace(FIRST, valid_loss=None, valid_accuracy=None, valid_balanced_accuracy=None)
    second = replace(first, epoch=2, train_loss=0.9)
    assert TrainHistory((first, second)).best == second


def test_history_grows_without_changing() -> None:
    empty = TrainHistory()
    grown = empty.extended(FIRST)
    assert (empty.best, grown.best) == (None, FIRST)
    assert empty.records == ()
    assert EpochRecord(**FIRST.to_dict()) == FIRST
    assert FIRST.data_wait_share is None
