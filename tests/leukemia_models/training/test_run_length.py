from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from leukemia_data.errors import UsageError
from leukemia_models.training.history import EarlyStopping, EpochRecord, TrainHistory
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.run_state import (
    EpochProgress,
    Extension,
    TrainSettings,
    TrainState,
    require_extended,
    with_length,
)
from leukemia_models.training.schedules import SCHEDULES, ScheduleSettings

from ..fakes import copied_state, fake_source, same_state, tiny_network
from ..small_training import Recorder, train, without_times

PEAK = 0.01


def settings_of(name: str = "cosine", epochs: int = 3, **changes) -> TrainSettings:
    schedule = ScheduleSettings(name=name, warmup_epochs=changes.pop("warmup_epochs", 0))
    return TrainSettings(epochs=epochs, optimizer=OptimizerSettings(lr=PEAK), schedule=schedule, **changes)


def state_after(epochs: int, progress: EpochProgress | None = None, loss: float | None = 1.0) -> TrainState:
    none = dict.fromkeys(("valid_accuracy", "valid_balanced_accuracy", "valid_weighted_f1", "valid_auroc"))
    rest = {"train_loss": 1.0, "train_accuracy": 0.5, "valid_loss": loss, "seconds": 1.0, "images_per_s": 1.0}
    records = (EpochRecord(epoch=number, lr=1.4e-05, **rest, **none) for number in range(1, epochs + 1))
    return TrainState(TrainHistory(tuple(records)), None, progress=progress)


def rates(settings: TrainSettings, first: int, last: int, records=()) -> list[float]:
    return [settings.learning_rate(first + k / 4, records) for k in range((last - first) * 4 + 1)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_stretched_run_has_the_rates_of_one_that_had_the_length_from_the_beginning(name: str) -> None:
    state = state_after(3)
    longer = with_length(settings_of(name), state, 8).settings
    assert longer.epochs == 8
    records = state.history.records
    assert rates(longer, 3, 8, records) == rates(settings_of(name, epochs=8), 3, 8, records)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_a_restarted_schedule_is_that_of_a_run_of_the_added_epochs(name: str, warmup_epochs: int) -> None:
    warmup_epochs = 0 if name == "one-cycle" else warmup_epochs
    state = state_after(12)
    longer = with_length(settings_of(name, 12, warmup_epochs=warmup_epochs), state, 17, "restart").settings
    alone = settings_of(name, 5, warmup_epochs=warmup_epochs)
    assert rates(longer, 12, 17, state.history.records) == rates(alone, 0, 5)
    # What came before the restart drops no rate of a plateau after it; what came after it does.
    more = state_after(28).history.records
    long = with_length(settings_of(name, 12), state, 40, "restart").settings
    if name == "plateau":
        assert long.learning_rate(28, more) == pytest.approx(PEAK * 0.1)


def test_the_note_has_both_rates_and_the_other_choice() -> None:
    note = with_length(settings_of(), state_after(3), 8).note
    following = PEAK * 0.5 * (1 + math.cos(math.pi * 3 / 8))
    for words in (
        "ends after 8 epochs instead of 3",
        "epoch 3 ended at 1.4e-05",
        f"epoch 4 begins at {following:.2g}",
        "the cosine schedule is stretched from 3 to 8 epochs",
        "--extend restart",
        "5 further epochs",
    ):
        assert words in note
    restarted = with_length(settings_of(), state_after(3), 8, "restart").note
    assert "epoch 4 begins at 0.01, as a new cosine schedule goes over the 5 further epochs" in restarted
    assert "does not depend on the length" in with_length(settings_of("constant"), state_after(3), 8).note


def test_the_note_of_an_unfinished_run_has_the_rate_of_the_other_choice() -> None:
    progress = EpochProgress(steps_done=4, lr=0.005)
    for state, epoch in ((state_after(1), 2), (state_after(1, progress), 3)):
        note = with_length(settings_of(), state, 8).note
        before, after = (PEAK * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / length)) for length in (3, 8))
        assert f"epoch {epoch} begins at {after:.2g} instead of {before:.2g}" in note
        assert "--extend" not in note
    assert "is its last one" in with_length(settings_of(), state_after(1, progress), 2).note


def test_each_change_of_length_is_kept_through_json_and_a_run_without_one_reads_as_before() -> None:
    first = with_length(settings_of(), state_after(3), 8, "restart").settings
    second = with_length(first, state_after(5), 10).settings
    assert second.extensions == (
        Extension(after_epochs=3, from_epochs=3, to_epochs=8, schedule="restart"),
        Extension(after_epochs=5, from_epochs=8, to_epochs=10, schedule="stretch"),
    )
    # The course that began after epoch 3 is the one that is stretched.
    assert rates(second, 5, 10) == rates(settings_of(epochs=7), 2, 7)
    assert TrainSettings.from_dict(json.loads(json.dumps(second.to_dict()))) == second
    plain = settings_of().to_dict()
    plain.pop("extensions")
    assert TrainSettings.from_dict(plain) == settings_of()
    assert second.extensions[0].text("cosine").startswith("After 3 epochs the run was extended from 3 to 8 epochs")


def test_a_run_that_has_not_begun_only_gets_another_length() -> None:
    changed = with_length(settings_of(), None, 8)
    assert changed.settings == settings_of(epochs=8)
    assert "learning rate" not in changed.note


@pytest.mark.parametrize(
    ("settings", "state", "epochs", "extend", "words"),
    [
        (settings_of(), state_after(2), 8, "restart", "has done 2 of 3 epochs"),
        (settings_of(), None, 8, "restart", "has done 0 of 3 epochs"),
        (settings_of(), state_after(1, EpochProgress(steps_done=1)), 1, "stretch", "has begun 2 epochs"),
        (settings_of(), state_after(3), 8, "sideways", "use stretch or restart"),
        (settings_of(warmup_epochs=3), state_after(3), 5, "restart", "warm-up of 3 epochs is longer than 2"),
        (
            settings_of(epochs=9, early_stopping=EarlyStopping(patience_epochs=1, metric="loss")),
            state_after(3),
            12,
            "stretch",
            "early stopping after 3 epochs",
        ),
        (
            TrainSettings(
                epochs=3, optimizer=OptimizerSettings(name="ranger21"), schedule=ScheduleSettings(name="constant")
            ),
            state_after(3),
            8,
            "restart",
            "ranger21 has its own schedule",
        ),
    ],
)
def test_lengths_that_cannot_be_are_refused(settings, state, epochs, extend, words) -> None:
    with pytest.raises(UsageError, match=words):
        with_length(settings, state, epochs, extend)


SIZED = settings_of(epochs=4, sizes=((64, 2), (96, 1), (128, 1)))


def test_further_epochs_are_at_the_last_of_progressive_sizes() -> None:
    for state in (None, state_after(4)):
        longer = with_length(SIZED, state, 7).settings
        assert (longer.epochs, longer.sizes) == (7, ((64, 2), (96, 1), (128, 4)))
        again = with_length(longer, state, 5).settings
        assert again.sizes == ((64, 2), (96, 1), (128, 2))


@pytest.mark.parametrize("begun", [None, state_after(2)])
def test_a_run_keeps_an_epoch_at_the_last_of_its_sizes(begun: TrainState | None) -> None:
    with pytest.raises(UsageError, match=r"only epochs at 128 px.*give at least 4"):
        with_length(SIZED, begun, 3)


def test_the_same_extension_again_is_none_and_another_is_refused() -> None:
    longer = with_length(settings_of(), state_after(3), 8, "restart").settings
    require_extended(longer, "restart")
    for settings, extend in ((longer, "stretch"), (settings_of(), "stretch")):
        with pytest.raises(UsageError, match="by --epochs"):
            require_extended(settings, extend)


@pytest.mark.parametrize("extend", ["stretch", "restart"])
@pytest.mark.parametrize("extra", [{}, {"ema_decay": 0.9}], ids=["plain", "average"])
def test_an_extended_run_that_is_stopped_ends_bit_by_bit_like_one_that_was_not(extend: str, extra: dict) -> None:
    source, valid = fake_source(8, 8), fake_source(6)
    model = tiny_network()
    first = Recorder(model)
    train(model, source, valid, epochs=2, observer=first, **extra)
    settings = with_length(TrainSettings(epochs=2, **extra), first.states[-1], 4, extend).settings
    longer = {"epochs": 4, "extensions": settings.extensions, **extra}

    def goes_on(start, weights):
        network = tiny_network()
        network.load_state_dict(weights)
        heard = Recorder(network, state_after=((3, 1),))
        history = train(network, source, valid, start=start, observer=heard, **longer)
        return history, copied_state(network), heard

    history, weights, heard = goes_on(first.states[-1], first.weights[-1])
    (inside, inside_weights) = heard.saved[0]
    for start, at in ((inside, inside_weights), (heard.states[0], heard.weights[0])):
        again, found, _ = goes_on(start, at)
        assert without_times(again) == without_times(history)
        assert same_state(found, weights)
    assert len(history.records) == 4
    if extend == "restart":
        assert [record.lr for record in history.records[2:]] == [record.lr for record in history.records[:2]]


def test_a_damaged_extension_is_refused() -> None:
    values = replace(settings_of(), epochs=8).to_dict()
    for wrong in (
        {"after_epochs": -1, "from_epochs": 3, "to_epochs": 8, "schedule": "stretch"},
        {"after_epochs": 2, "from_epochs": 3, "to_epochs": 8, "schedule": "restart"},
        {"after_epochs": 9, "from_epochs": 9, "to_epochs": 12, "schedule": "restart"},
        {"after_epochs": 3.5, "from_epochs": 3, "to_epochs": 8, "schedule": "stretch"},
    ):
        with pytest.raises(UsageError):
            TrainSettings.from_dict({**values, "extensions": [wrong]})
