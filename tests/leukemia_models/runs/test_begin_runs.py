"""Folders of runs are claimed: no two trainings write to one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from leukemia_data.errors import LeukemiaError, RunError, UsageError
from leukemia_data.files.lock import HOLDER_NAME, lock_run
from leukemia_models.runs.begin_runs import claim_folder, clear_beginning

NUM = 8


def all_at_once(claim: Callable[[ExitStack], Path], held: ExitStack) -> list[Path | LeukemiaError]:
    """Results of simultaneous claims: locks conflict between threads as between processes."""
    ready = threading.Barrier(NUM)

    def begin(_: int) -> Path | LeukemiaError:
        ready.wait()
        try:
            return claim(held)
        except LeukemiaError as error:
            return error

    with ThreadPoolExecutor(NUM) as threads:
        return list(threads.map(begin, range(NUM)))


def test_all_who_begin_at_once_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as held:
        found = all_at_once(lambda stack: claim_folder(None, "net-64px", stack), held)
    names = ["net-64px", *(f"net-64px-{number}" for number in range(2, NUM + 1))]
    assert sorted(map(str, found)) == sorted(str(Path("runs") / name) for name in names)


def test_of_all_who_name_the_same_folder_one_begins(tmp_path: Path) -> None:
    with ExitStack() as held:
        found = all_at_once(lambda stack: claim_folder(tmp_path / "run", "", stack), held)
        errors = [each for each in found if isinstance(each, RunError)]
        assert len(errors) == NUM - 1
        assert all("another training is writing to" in str(error) for error in errors)
        assert f"process {os.getpid()}" in str(claim_error(tmp_path / "run"))
    assert claim_folder(tmp_path / "run", "", ExitStack()) == tmp_path / "run"


def claim_error(out: Path, *, clear: bool = False) -> LeukemiaError:
    with pytest.raises(LeukemiaError) as caught:
        claim_folder(out, "", ExitStack(), clear=clear)
    return caught.value


def test_a_folder_with_anything_in_it_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for clear in (False, True):
        assert isinstance(claim_error(tmp_path, clear=clear), UsageError)
        assert (tmp_path / "notes.txt").read_text() == "mine"
    assert isinstance(claim_error(tmp_path / "notes.txt"), UsageError)


def test_files_of_a_killed_beginning_are_removed_but_not_while_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "split.csv").write_text("id\n")
    with lock_run(tmp_path / "run"):
        assert "another training" in str(claim_error(tmp_path / "run", clear=True))
        assert (tmp_path / "run" / "split.csv").is_file()
    assert isinstance(claim_error(tmp_path / "run"), UsageError)
    with ExitStack() as held:
        claim_folder(tmp_path / "run", "", held, clear=True)
        assert not (tmp_path / "run" / "split.csv").exists()
        assert (tmp_path / "run" / HOLDER_NAME).is_file()
    assert not (tmp_path / "run" / HOLDER_NAME).exists()


def test_a_folder_with_checkpoints_is_no_beginning(tmp_path: Path) -> None:
    for name in ("split.csv", "last.safetensors"):
        (tmp_path / name).write_text("")
    clear_beginning(tmp_path)
    assert (tmp_path / "split.csv").is_file()
