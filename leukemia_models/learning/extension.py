"""Another length for a run that has begun: what was changed, and what the learning rate then does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from leukemia_data.errors import UsageError
from leukemia_data.samples.arguments import as_whole

STRETCH, RESTART = "stretch", "restart"
EXTENSIONS = (STRETCH, RESTART)
LENGTH_SCHEDULES = frozenset({"cosine", "step", "one-cycle"})
"""Schedules whose course depends on the run's length; the others go on as they were."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """One change of a run's length.

    Parameters
    ----------
    after_epochs : int
        Finished epochs when it was made, at least 0.
    from_epochs, to_epochs : int
        The length before and since, at least 1.
    schedule : {"stretch", "restart"}
        Whether the schedule's course goes over the new length, or a new course began after `after_epochs`.

    Raises
    ------
    UsageError
        If a value is outside its range, or a new course would begin before the old one has ended.
    """

    after_epochs: int
    from_epochs: int
    to_epochs: int
    schedule: str = STRETCH

    def __post_init__(self) -> None:
        as_whole(self.after_epochs, "after_epochs", at_least=0)
        as_whole(self.from_epochs, "from_epochs", at_least=1)
        as_whole(self.to_epochs, "to_epochs", at_least=1)
        require_extension(self.schedule)
        if self.schedule == RESTART and not self.after_epochs == self.from_epochs < self.to_epochs:
            raise UsageError(
                f"a new course begins where the old one has ended, after {self.from_epochs} epochs, and not after "
                f"{self.after_epochs} of {self.to_epochs}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Extension:
        """Return what :meth:`to_dict` wrote."""
        return cls(**values)

    def text(self, schedule_name: str) -> str:
        """Return one sentence for people; `schedule_name` is the run's schedule."""
        word = "extended" if self.to_epochs > self.from_epochs else "shortened"
        return (
            f"After {self.after_epochs} epochs the run was {word} from {self.from_epochs} to {self.to_epochs} epochs: "
            f"{self.course(schedule_name)}."
        )

    def course(self, schedule_name: str) -> str:
        """Return what the schedule does since, as a clause."""
        if self.schedule == RESTART:
            return f"a new {schedule_name} schedule goes over the {self.to_epochs - self.after_epochs} further epochs"
        if schedule_name not in LENGTH_SCHEDULES:
            return f"the {schedule_name} schedule goes on, it does not depend on the length"
        word = "stretched" if self.to_epochs > self.from_epochs else "shortened"
        return f"the {schedule_name} schedule is {word} from {self.from_epochs} to {self.to_epochs} epochs"


def require_extension(name: str) -> None:
    """Raise UsageError unless `name` is one of :data:`EXTENSIONS`."""
    if name not in EXTENSIONS:
        raise UsageError(f"unknown extension {name!r}: use {' or '.join(EXTENSIONS)}")
