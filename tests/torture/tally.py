"""What a torture scenario did: how many faults were tried, and what did not survive them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

Report = Callable[[str, str], None]
"""Told once a fault: what was done, and ``survived`` or what was lost. Moves the bar on."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Result of a scenario, or of several runs of it added up.

    Attributes
    ----------
    tried
        Faults that were made.
    survived
        Faults after which everything was right.
    lost
        What went wrong, one description each. One that begins with ``seed 17:`` happens again with
        ``--seed 17 --count 1``.
    outcomes
        How often each kind of thing that was tried (first) came to each end (second), where a scenario counts that.
    """

    tried: int = 0
    survived: int = 0
    lost: tuple[str, ...] = ()
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.tried + other.tried,
            self.survived + other.survived,
            self.lost + other.lost,
            self.outcomes + other.outcomes,
        )
