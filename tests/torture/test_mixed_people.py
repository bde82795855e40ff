"""The short version; `python -m tests.torture mixed_people` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from . import mixed_people
from .people.attempt import Attempt, outcome_of
from .people.bench import Seen, Some, Told, is_mixed
from .people.later_ways import edited_split, renumbered_files, training_images_from_outside
from .people.source_ways import merged_sources, renamed_person
from .people.weight_ways import in_a_plan, over_two_runs, renamed_source
from .people.world import CHANGES, copies_of, draw_people

WAYS = (
    renamed_person,
    merged_sources,
    over_two_runs,
    renamed_source,
    in_a_plan,
    renumbered_files,
    edited_split,
    training_images_from_outside,
)


@pytest.mark.torture
def test_people_on_both_sides_are_refused_or_stamped(tmp_path: Path) -> None:
    tally = mixed_people.run(tmp_path, 0, len(WAYS), lambda way, outcome: None, WAYS)
    assert not tally.lost, "\n".join(tally.lost)
    assert sum(count for (_, end), count in tally.outcomes.items() if end in ("refused", "stamped")) >= len(WAYS) // 2


@pytest.mark.parametrize(
    ("told", "stamps", "outcome"),
    [
        (Told(2, "Error: split subject is PATIENT-MIXED (1 subject on both sides)"), [], "refused"),
        (Told(2, "Error: no such option"), [], "failed"),
        (Told(0, ""), ["subject-disjoint", "PATIENT-MIXED (1 image)"], "called disjoint"),
        (Told(0, ""), ["PATIENT-MIXED (1 image)"], "stamped"),
        (Told(0, ""), [], "called disjoint"),
    ],
)
def test_what_counts_as_noticed(told: Told, stamps: list[str], outcome: str) -> None:
    assert outcome_of(told, stamps) == outcome
    assert Attempt("", True, outcome_of(told, stamps), "").is_lost == (outcome in ("failed", "called disjoint"))


def test_truth_knows_copies_and_earlier_weights() -> None:
    chance = random.Random(0)
    cells = draw_people(chance)
    parts = {cell.name: "test" if cell.person in ("p0", "p1") else "train" for cell in cells}
    assert not is_mixed(cells, parts, Seen())
    assert is_mixed(cells, parts, Seen(trained=Some(frozenset({"p1"}))))
    assert is_mixed(cells, parts, Seen(chosen=Some(frozenset({"p1"}))))
    validated = {name: part.replace("test", "valid") for name, part in parts.items()}
    assert not is_mixed(cells, validated, Seen(chosen=Some(frozenset({"p1"}))))
    copied = copies_of(cells[:1], chance, CHANGES[1], prefix="again", subject="other")
    assert is_mixed([*cells, *copied], {**parts, copied[0].name: "train"}, Seen())
    assert not np.array_equal(copied[0].pixels, cells[0].pixels)
