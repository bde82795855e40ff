"""Give a run another length: its settings and where it stands in, new settings and a note about the two rates out.

A schedule is a function of how far the run has come. With another length the same epoch lies elsewhere in it, so a
finished cosine, stretched, begins again far above the rate at which it had ended; people may as well mean a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from leukemia_data.errors import UsageError
from leukemia_models.learning.extension import LENGTH_SCHEDULES, RESTART, STRETCH, Extension, require_extension
from leukemia_models.learning.run_state import TrainSettings, TrainState


@dataclass(frozen=True)
class ChangedLength:
    """Settings of a run with another length, and what to tell people of it."""

    settings: TrainSettings
    note: str


def with_length(settings: TrainSettings, state: TrainState | None, epochs: int, extend: str = STRETCH) -> ChangedLength:
    """Return the settings of a run that ends after another number of epochs.

    Parameters
    ----------
    settings : TrainSettings
        What it was told so far.
    state : TrainState or None
        Where it stands; None where it has not begun, and nothing but the length changes.
    epochs : int
        The new length, at least the epochs that it has begun.
    extend : {"stretch", "restart"}
        Whether the schedule's course goes over the new length, as if the run had been given it from the beginning; or
        a new course, from its warm-up and peak rate on, goes over the epochs that are added. The latter is for a run
        whose epochs are all done.

    Raises
    ------
    UsageError
        If the run has begun more epochs, was ended by early stopping, or cannot begin a new course.
    """
    require_extension(extend)
    changed = f"the run now ends after {epochs} epochs instead of {settings.epochs}"
    done = state.epochs_done if state is not None else 0
    begun = done + (1 if state is not None and state.progress else 0)
    _require_possible(settings, state, epochs, begun, extend)
    if state is None:
        return ChangedLength(replace(settings, epochs=epochs), changed)
    extension = Extension(after_epochs=done, from_epochs=settings.epochs, to_epochs=epochs, schedule=extend)
    longer = replace(settings, epochs=epochs, extensions=(*(settings.extensions or ()), extension))
    return ChangedLength(longer, f"{changed}; {_rates(settings, longer, extension, state, begun)}")


def require_extended(settings: TrainSettings, extend: str) -> None:
    """Refuse to extend a run whose length stays as it is, unless it was extended in this way already.

    Raises
    ------
    UsageError
        If the last extension was another one, or there was none.
    """
    if not settings.extensions or settings.extensions[-1].schedule != extend:
        raise UsageError(
            f"--extend {extend}: the run has {settings.epochs} epochs; say by --epochs how many it shall have"
        )


def _require_possible(settings: TrainSettings, state: TrainState | None, epochs: int, begun: int, extend: str) -> None:
    # The weights at hand are those of the last step: there are none of the end of an epoch that has another begun.
    if epochs < begun:
        raise UsageError(f"--epochs {epochs}: the run has begun {begun} epochs already")
    if state is not None and settings.stopped_early(state.history.records):
        raise UsageError(
            f"--epochs {epochs}: the run was ended by early stopping after {state.epochs_done} epochs, and would end "
            "there again; start a new run"
        )
    if extend != RESTART:
        return
    if settings.optimizer.schedules_itself:
        raise UsageError(
            f"--extend {RESTART}: {settings.optimizer.name} has a schedule of its own, which goes over the whole run; "
            f"use --extend {STRETCH}"
        )
    if state is None or state.epochs_done < settings.epochs or epochs <= settings.epochs:
        raise UsageError(
            f"--extend {RESTART}: a new schedule begins where the old one has ended, and the run has done "
            f"{state.epochs_done if state else 0} of {settings.epochs} epochs; go on with it first, or use --extend "
            f"{STRETCH}"
        )


def _rates(before: TrainSettings, after: TrainSettings, extension: Extension, state: TrainState, begun: int) -> str:
    """What the rate was, what it will be at the next epoch that begins, and what else could be meant."""
    if after.epochs <= begun:
        return "the epoch under way is its last one"
    name, records = before.schedule.name, state.history.records
    course = extension.course(name)
    if before.optimizer.schedules_itself:
        ended = f"epoch {len(records)} ended at learning rate {records[-1].lr:.2g}, and " if records else ""
        return f"{ended}{before.optimizer.name} lays its own schedule out over {after.epochs} epochs"
    # A plateau's rate depends on epochs that are still to come.
    following = after.learning_rate(begun, records)
    if begun < before.epochs:
        earlier = before.learning_rate(begun, records)
        return f"learning rate: epoch {begun + 1} begins at {following:.2g} instead of {earlier:.2g}, as {course}"
    text = f"learning rate: epoch {begun} ended at {records[-1].lr:.2g}; epoch {begun + 1} begins at {following:.2g}, "
    if extension.schedule == RESTART or name not in LENGTH_SCHEDULES:
        return f"{text}as {course}"
    further = after.epochs - begun
    return f"{text}as {course} (--extend {RESTART} is for a new one over the {further} further epochs)"
