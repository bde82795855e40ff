"""Temporary folders of processes that end or are killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from leukemia_data.files.atomic import scratch_folder

from ..helpers import python_environment

DIES = """
import os, sys
from pathlib import Path
from leukemia_data.files.atomic import scratch_folder
with scratch_folder("mine-", Path(sys.argv[1])) as folder:
    (folder / "shard").write_bytes(b"x")
    os._exit(1)
"""


def test_folder_is_removed_after_the_block_whatever_happens(tmp_path):
    def fail() -> None:
        with scratch_folder("mine-", tmp_path) as folder:
            assert folder.parent == tmp_path
            (folder / "sub").mkdir()
            (folder / "sub" / "file").write_bytes(b"x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_leave_each_other_alone(tmp_path):
    with scratch_folder("mine-", tmp_path) as first, scratch_folder("mine-", tmp_path) as second:
        assert first != second
        assert first.is_dir()
        assert second.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    (tmp_path / "mine-notes").mkdir()
    (tmp_path / "other.lock").touch()
    subprocess.run([sys.executable, "-c", DIES, tmp_path], env=python_environment(), check=False)
    [left] = tmp_path.glob("mine-*/shard")
    with scratch_folder("mine-", tmp_path):
        assert not left.parent.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine-notes", "other.lock"}
