from __future__ import annotations

import os
from collections import Counter

import pytest

if os.name != "posix":
    pytest.skip("trials run in forked processes", allow_module_level=True)

import signal

from leukemia_data.errors import LeukemiaError

from . import fuzz_children
from .fuzz_children import run_trials
from .fuzz_kind import FileKind
from .fuzzed_files import chosen_kind, mutated_file, prepared_kinds, tried

COUNT = 200


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[FileKind]:
    return prepared_kinds(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.torture
def test_sound_files_are_read(kinds: list[FileKind]) -> None:
    """Were the sound ones refused, the mutated ones would prove nothing."""
    for kind in kinds:
        for seed in kind.seeds:
            try:
                kind.read(seed)
            except LeukemiaError as error:
                pytest.fail(f"{kind.name}: {error}")


@pytest.mark.torture
def test_mutated_files_are_refused_or_answered(kinds: list[FileKind]) -> None:
    lost = [
        f"seed {number}: {chosen_kind(kinds, number).name}: {wrong}"
        for number, wrong in run_trials(lambda number: tried(kinds, number), range(COUNT))
        if wrong
    ]
    assert not lost, "\n".join(lost)


@pytest.mark.torture
def test_a_seed_always_stands_for_the_same_file_and_most_differ_from_the_sound_one(kinds: list[FileKind]) -> None:
    chosen = [chosen_kind(kinds, number) for number in range(100)]
    files = [mutated_file(kind, number) for number, kind in enumerate(chosen)]
    assert files == [mutated_file(kind, number) for number, kind in enumerate(chosen)]
    assert sum(data not in kind.seeds for data, kind in zip(files, chosen, strict=True)) > 90
    assert len(Counter(kind.name for kind in chosen)) > 20


def test_crashes_hangs_errors_and_greed_are_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_children, "COMPUTING_S", 0.2)

    def trial(number: int) -> str:
        match number:
            case 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 2:
                while True:
                    pass
            case 3:
                raise KeyError("lost")
            case 4:
                bytearray(64 << 30)
            case 5:
                return "wrong"
        return ""

    found = dict(run_trials(trial, range(7)))
    assert list(found) == list(range(7))
    assert (found[0], found[5], found[6]) == ("", "wrong", "")
    assert "SIGSEGV" in found[1]
    assert "computed for more than" in found[2]
    assert "KeyError: 'lost'" in found[3]
    assert "MemoryError" in found[4]
