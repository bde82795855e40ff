from __future__ import annotations

from collections import Counter

import pytest

from . import __main__ as program
from .tally import Tally


def test_scenarios_are_the_modules_with_a_run():
    names = program.scenario_names()
    assert {
        "build_kills",
        "io_faults",
        "full_disk",
        "interrupts",
        "memory",
        "changing_source",
        "source_layouts",
    } <= set(names)
    assert not {"tally", "build_ground", "fork_server"} & set(names)
    assert not any(name.startswith("test_") for name in names)


@pytest.fixture
def rounds(monkeypatch):
    """What the scenarios are asked for, with answers of no work."""
    asked: list[tuple[int, int]] = []

    def answer(scenario: object, seed: int, count: int, report: object) -> Tally:
        asked.append((seed, count))
        return Tally(count, count - 1, (f"seed {seed + 1}: the ground",)) if seed == 7 else Tally(count, count)

    monkeypatch.setattr(program, "_run_round", answer)
    return asked


def test_all_survived_is_a_success(rounds, capsys):
    assert program.main(["memory", "--seed", "3", "--count", "5"]) == 0
    assert rounds == [(3, 5)]
    assert capsys.readouterr().out.split()[-4:] == ["memory", "5", "5", "0"]


def test_a_loss_is_told_with_the_command_that_loses_it_again(rounds, capsys):
    assert program.main(["memory", "--seed", "7", "--count", "5"]) == 1
    told = capsys.readouterr().out
    assert "lost: seed 8: the ground" in told
    assert "again: python -m tests.torture memory --seed 8 --count 1" in told


def test_minutes_make_rounds_with_seeds_of_their_own(rounds):
    assert program.main(["memory", "--minutes", "0.0001"]) == 0
    assert rounds[:2] == [(0, 20), (20, 20)][: len(rounds[:2])]


def test_without_a_count_a_scenario_has_its_own(rounds):
    assert program.main(["memory", "source_layouts"]) == 0
    assert rounds == [(0, 100), (0, 2_000)]


def test_outcomes_are_added_up_and_printed_as_a_table(monkeypatch, capsys):
    def answer(scenario: object, seed: int, count: int, report: object) -> Tally:
        return Tally(count, count, outcomes=Counter({("tree", "equal"): 2, ("flat", "refused"): 1}))

    monkeypatch.setattr(program, "_run_round", answer)
    assert program.main(["memory", "--count", "3"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-3:]] == [
        ["equal", "refused"],
        ["flat", "0", "1"],
        ["tree", "2", "0"],
    ]
    both = answer(None, 0, 1, None) + answer(None, 1, 1, None)
    assert both.outcomes["tree", "equal"] == 4


def test_unknown_scenarios_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(["no-such"])
    assert ended.value.code == 2
    assert "no such scenario: no-such" in capsys.readouterr().err
