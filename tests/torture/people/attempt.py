"""One attempt to bring people who are evaluated into training, and whether it was noticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .bench import Bench, Seen, Told, are_disjoint, is_mixed, parts_of, stamps_below
from .world import Cell

Outcome = Literal["refused", "stamped", "called disjoint", "failed"]
SAYS_WHY = (
    "PATIENT-MIXED",
    "is not what the run was begun with",
    "does not belong to",
    "samples of the split",
)
"""A refusal for any other reason says nothing about people."""


@dataclass(frozen=True)
class Attempt:
    """What was tried and what came of it.

    Attributes
    ----------
    way
        In a few words.
    is_mixed
        The truth: whether people or photographs stand on both sides.
    outcome
        ``refused`` with words about it, ``stamped`` as mixed, ``called disjoint``, or ``failed`` for another reason.
    told
        What the command said.
    """

    way: str
    is_mixed: bool
    outcome: Outcome
    told: str

    @property
    def is_lost(self) -> bool:
        """Whether mixed people were called disjoint, or nothing can be said because a command failed."""
        return self.outcome == "failed" or (self.is_mixed and self.outcome == "called disjoint")

    @property
    def end(self) -> str:
        """The outcome, with a word on those that were not mixed at all."""
        return self.outcome if self.is_mixed else f"not mixed, {self.outcome}"


def outcome_of(told: Told, stamps: Sequence[str]) -> Outcome:
    """What a command and the results that it left come to."""
    if told.exit_code:
        return "refused" if any(words in told.text for words in SAYS_WHY) else "failed"
    return "called disjoint" if not stamps or are_disjoint(stamps) else "stamped"


def attempt_training(
    way: str, bench: Bench, cells: Sequence[Cell], options: Sequence[object], *, seen: Seen | None = None
) -> list[Attempt]:
    """Train as anybody would; where that is refused, once more with --allow-leak, which must stamp everything.

    Parameters
    ----------
    cells
        What the cache holds.
    seen
        Whom the weights that it starts from were trained on.
    """
    told = bench.train("tried", *options)
    out, attempts = bench.folder / "tried", []
    if told.exit_code:
        out = bench.folder / "allowed"
        allowed = bench.train("allowed", *options, "--allow-leak")
        if allowed.exit_code:
            return [Attempt(way, True, "failed", f"{told.text}\n{allowed.text}")]
        truth = is_mixed(cells, parts_of(out), seen or Seen())
        attempts.append(Attempt(f"{way}, --allow-leak", truth, outcome_of(allowed, stamps_below(out)), allowed.text))
    else:
        truth = is_mixed(cells, parts_of(out), seen or Seen())
    attempts.append(Attempt(way, truth, outcome_of(told, stamps_below(out)), told.text))
    return attempts


def attempt_evaluation(way: str, told: Told, written: Path, *, truth: bool) -> list[Attempt]:
    """Take what a command said and left, knowing what the images that it evaluated are."""
    return [Attempt(way, truth, outcome_of(told, stamps_below(written)), told.text)]
