from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from leukemia_data.files.limits import free_disk_bytes, is_disk_full


def test_room_is_that_of_the_disk_also_where_the_folder_is_yet_to_be_made(tmp_path: Path) -> None:
    free = free_disk_bytes(tmp_path / "to" / "be" / "made")
    assert free is not None
    # Others write too.
    assert abs(free - shutil.disk_usage(tmp_path).free) < 2**30


def test_a_file_system_that_does_not_say_has_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 0))
    assert free_disk_bytes(tmp_path) is None

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    assert free_disk_bytes(tmp_path) is None


def test_only_a_lack_of_room_is_a_full_disk() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_disk_full(OSError(errno.EFBIG, "File too large"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(RuntimeError("No space left on device"))
