from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from leukemia_data.files import atomic
from leukemia_data.files.atomic import (
    PARTIAL_SUFFIX,
    atomic_path,
    move_into_place,
    remove_file,
    scratch_path,
    sync_directory,
    sync_file,
    write_text,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_while_writing(final: Path) -> None:
    with atomic_path(final) as partial:
        partial.write_text("half", encoding="utf-8")
        raise RuntimeError("stop")


def test_a_new_file_appears_whole_at_the_end(tmp_path):
    final = tmp_path / "file.txt"
    with atomic_path(final) as partial:
        assert partial.parent == tmp_path
        assert partial.name.endswith(PARTIAL_SUFFIX)
        partial.write_text("all of it", encoding="utf-8")
        assert not final.exists()
    assert final.read_text(encoding="utf-8") == "all of it"
    assert names_in(tmp_path) == ["file.txt"]


def test_an_old_file_is_replaced_in_one_step(tmp_path):
    final = tmp_path / "file.txt"
    final.write_text("old", encoding="utf-8")
    with atomic_path(final) as partial:
        partial.write_text("new", encoding="utf-8")
        assert final.read_text(encoding="utf-8") == "old"
    assert final.read_text(encoding="utf-8") == "new"
    assert names_in(tmp_path) == ["file.txt"]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"):
        fail_while_writing(tmp_path / "file.txt")
    assert names_in(tmp_path) == []


def test_an_error_keeps_the_old_file(tmp_path):
    final = tmp_path / "file.txt"
    final.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError, match="stop"):
        fail_while_writing(final)
    assert final.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_ctrl_c_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with atomic_path(tmp_path / "file.txt") as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names_in(tmp_path) == []


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    final = tmp_path / "file.txt"
    final.write_text("old", encoding="utf-8")
    with pytest.raises(FileNotFoundError), atomic_path(final):
        pass
    assert final.read_text(encoding="utf-8") == "old"


def test_the_bytes_are_on_disk_before_the_name_and_the_name_at_the_end(tmp_path, monkeypatch):
    final = tmp_path / "file.txt"
    had_name: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: had_name.append(final.exists()))
    with atomic_path(final) as partial:
        partial.write_bytes(b"x")
    assert had_name == ([False] if os.name == "nt" else [False, True])


def test_two_writers_do_not_meet(tmp_path):
    final = tmp_path / "file.txt"
    with atomic_path(final) as first, atomic_path(final) as second:
        assert first != second
        first.write_text("outer", encoding="utf-8")
        second.write_text("inner", encoding="utf-8")
    assert final.read_text(encoding="utf-8") == "outer"
    assert names_in(tmp_path) == ["file.txt"]


def test_scratch_may_be_moved_away_or_left(tmp_path):
    with scratch_path(tmp_path, "stem") as scratch:
        scratch.write_text("kept", encoding="utf-8")
        scratch.replace(tmp_path / "kept.txt")
    with scratch_path(tmp_path, "stem") as scratch:
        scratch.write_text("left", encoding="utf-8")
    assert names_in(tmp_path) == ["kept.txt"]


def test_text_is_utf_8_with_lf_on_every_system(tmp_path):
    write_text(tmp_path / "text.txt", "größe\n2\n")
    assert (tmp_path / "text.txt").read_bytes() == "größe\n2\n".encode()


def test_text_that_cannot_be_written_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "text.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "text.txt", "new \udcff")
    assert (tmp_path / "text.txt").read_bytes() == b"old"
    assert names_in(tmp_path) == ["text.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no directories")
def test_directories_can_be_synced(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    sync_directory(tmp_path)
    assert synced == [tmp_path.stat().st_ino]


def test_an_error_that_names_no_file_gets_the_final_name(tmp_path):
    final = tmp_path / "file.txt"
    with pytest.raises(OSError, match="No space left") as caught, atomic_path(final):
        raise OSError(errno.ENOSPC, "a page of addresses\nin two lines")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(final))
    assert "\n" not in str(caught.value)


def test_an_error_that_names_a_file_keeps_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "file.txt"):
        (tmp_path / "other").read_bytes()
    assert Path(caught.value.filename) == tmp_path / "other"


def test_a_failed_flush_names_the_file(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "file.txt"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"file\.txt"):
        sync_file(path)


def test_a_scratch_file_that_cannot_be_removed_does_not_hide_the_error(tmp_path, monkeypatch):
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "refused", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RuntimeError, match="stop"):
        fail_while_writing(tmp_path / "file.txt")


class HeldOpen(PermissionError):
    """What Windows raises for a file that another program has open."""

    def __init__(self, winerror: int) -> None:
        super().__init__(errno.EACCES, "in use")
        self.winerror = winerror


@pytest.fixture
def renames(tmp_path, monkeypatch):
    """Two files, the errors that the next renames raise, and the pauses between them."""
    errors, pauses, rename = [], [], Path.replace

    def replace(path, target):
        if errors:
            raise errors.pop(0)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(atomic, "_IS_WINDOWS", True)
    scratch, final = tmp_path / "new", tmp_path / "final"
    scratch.write_text("new", encoding="utf-8")
    final.write_text("old", encoding="utf-8")
    return SimpleNamespace(errors=errors, pauses=pauses, scratch=scratch, final=final)


@pytest.mark.parametrize("winerror", [5, 32, 33])
def test_a_file_that_is_held_open_on_windows_is_replaced_when_it_is_let_go(renames, winerror):
    renames.errors += [HeldOpen(winerror)] * 3
    move_into_place(renames.scratch, renames.final, renames.pauses.append)
    assert renames.final.read_text(encoding="utf-8") == "new"
    assert len(renames.pauses) == 3


def test_a_file_that_is_never_let_go_is_an_error_after_two_seconds(renames):
    renames.errors += [HeldOpen(32)] * 99
    with pytest.raises(HeldOpen):
        move_into_place(renames.scratch, renames.final, renames.pauses.append)
    assert 1.5 < sum(renames.pauses) < 2.5
    assert renames.final.read_text(encoding="utf-8") == "old"


def test_a_file_that_is_held_open_on_windows_is_removed_when_it_is_let_go(renames, monkeypatch):
    errors, unlink = [HeldOpen(32)] * 3, Path.unlink

    def held(path, missing_ok=False):
        if errors:
            raise errors.pop()
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    remove_file(renames.final, renames.pauses.append)
    assert not renames.final.exists()
    remove_file(renames.final, renames.pauses.append)
    assert len(renames.pauses) == 3


def test_other_errors_and_other_systems_do_not_wait(renames, monkeypatch):
    for error in (HeldOpen(112), OSError(errno.ENOSPC, "full")):
        renames.errors.append(error)
        with pytest.raises(OSError, match=r"in use|full"):
            move_into_place(renames.scratch, renames.final, renames.pauses.append)
    monkeypatch.setattr(atomic, "_IS_WINDOWS", False)
    renames.errors.append(HeldOpen(32))
    with pytest.raises(HeldOpen):
        move_into_place(renames.scratch, renames.final, renames.pauses.append)
    assert renames.pauses == []


@pytest.mark.parametrize("has_it", [True, False])
def test_macos_flushes_past_the_memory_of_the_drive(tmp_path, monkeypatch, has_it):
    calls = []

    def full_sync(descriptor, command):
        calls.append(command)
        if not has_it:
            raise OSError(errno.ENOTSUP, "not on this file system")

    monkeypatch.setattr(atomic, "fcntl", SimpleNamespace(F_FULLFSYNC=51, fcntl=full_sync))
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    write_text(tmp_path / "file", "text")
    assert calls == [51, 51] if has_it else [51, "fsync", 51, "fsync"]
