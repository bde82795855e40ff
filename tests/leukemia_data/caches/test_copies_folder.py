"""Size accounting of the folder of local copies: when its files are measured."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path

import pytest

from leukemia_data.caches.local_copies import LOCKS_DIR, CopiesFolder

FILE_BYTES = 100


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """One entry for each time that all local copies were measured."""
    (tmp_path / LOCKS_DIR).mkdir()
    scandir, found = os.scandir, []

    def counted(path: Path) -> object:
        found.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    return found


def bring(directory: Path, max_bytes: int | None, number: int, keep: tuple[str, ...] = ()) -> bool:
    """Add a file of 100 bytes: reserve room, write, release."""
    room, name = pickle.loads(pickle.dumps(CopiesFolder(directory, max_bytes))), f"shard-{number:04}.h5"
    if not room.reserve(name, FILE_BYTES, keep):
        return False
    (directory / name).write_bytes(bytes(FILE_BYTES))
    os.utime(directory / name, (number + 1, number + 1))
    room.release(name)
    return True


def staged(directory: Path) -> list[int]:
    return sorted(int(path.stem[-4:]) for path in directory.iterdir() if path.suffix == ".h5")


@pytest.mark.parametrize("max_bytes", [50 * FILE_BYTES, None])
def test_many_files_are_brought_with_one_look(tmp_path: Path, looks: list, max_bytes: int | None) -> None:
    assert all(bring(tmp_path, max_bytes, number) for number in range(50))
    assert staged(tmp_path) == list(range(50))
    assert len(looks) == 1
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".reserved"]


def test_full_stage_lets_go_of_several_files_at_a_look(tmp_path: Path, looks: list) -> None:
    assert all(bring(tmp_path, 256 * FILE_BYTES, number) for number in range(512))
    # Each measurement makes room for a 64th of 256 files.
    assert 64 <= len(looks) <= 68
    left = staged(tmp_path)
    assert left == list(range(512 - len(left), 512))
    assert 252 <= len(left) <= 256


def test_room_of_files_that_never_came_is_found_again(tmp_path: Path, looks: list) -> None:
    room = CopiesFolder(tmp_path, 3 * FILE_BYTES)
    for number in range(10):
        assert room.reserve(f"shard-{number}.h5", FILE_BYTES, ())
        room.release(f"shard-{number}.h5")
    assert len(looks) == 4


@pytest.mark.parametrize("note", ["", "[]", '{"num_bytes": -5, "looked_s": 0}', '{"num_bytes": 0, "looked_s": NaN}'])
def test_damaged_note_counts_as_none(tmp_path: Path, looks: list, note: str) -> None:
    assert bring(tmp_path, 2 * FILE_BYTES, 0)
    (tmp_path / LOCKS_DIR / "room.json").write_text(note)
    assert bring(tmp_path, 2 * FILE_BYTES, 1)
    assert len(looks) == 2
    assert not bring(tmp_path, 2 * FILE_BYTES, 2, keep=("shard-0000.h5", "shard-0001.h5"))


@pytest.mark.parametrize("age_s", [3600.0, -3600.0])
def test_old_note_and_one_of_the_future_are_not_believed(tmp_path: Path, looks: list, age_s: float) -> None:
    note = tmp_path / LOCKS_DIR / "room.json"
    note.write_text(json.dumps({"num_bytes": 0, "looked_s": time.time() - age_s}))
    for number in range(3):
        (tmp_path / f"shard-{number:04}.h5").write_bytes(bytes(FILE_BYTES))
    assert bring(tmp_path, 3 * FILE_BYTES, 3)
    assert len(looks) == 1
    assert len(staged(tmp_path)) == 3


def test_a_dead_download_that_is_in_use_stays_and_stops_nothing(
    tmp_path: Path, looks: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows removes no file that a virus scanner has open."""
    dead, unlink = tmp_path / "shard-0000.h5.partial", Path.unlink
    dead.write_bytes(b"part")
    os.utime(dead, (1, 1))

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == dead:
            raise PermissionError(13, "in use")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert bring(tmp_path, 50 * FILE_BYTES, 1)
    assert staged(tmp_path) == [1]
    assert looks
    assert dead.exists()
