"""States of files: their changes, and values beyond 64 bits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leukemia_data.files.atomic import NO_FILE, UNSETTLED_NS, FileState, state_of

MOST = 2**63 - 1


class _Status:
    """A possible state of a file; no file system here has all of them."""

    def __init__(self, *, mtime_ns: int = 5, ctime_ns: int = 6, inode: int = 7) -> None:
        self.st_size, self.st_mtime_ns, self.st_ctime_ns, self.st_ino = 10, mtime_ns, ctime_ns, inode


def test_the_numbers_are_those_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    status = path.stat()
    assert state_of(status) == (3, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert state_of(status).is_file
    assert not NO_FILE.is_file


def test_reading_leaves_the_state_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    os.utime(path, ns=(0, 10**18))
    before = state_of(path.stat())
    path.read_bytes()
    assert state_of(path.stat()) == before


@pytest.mark.parametrize("name", ["mtime_ns", "ctime_ns"])
@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [(-5, -5), (2**62, 2**62), (MOST, MOST), (2**63, MOST), (-(2**70), MOST), (15 * 10**18, MOST), (-1, -3), (-2, -3)],
)
def test_times_are_kept_where_64_bits_hold_them(name: str, time_ns: int, expected: int) -> None:
    state = state_of(_Status(**{name: time_ns}))
    assert getattr(state, name) == expected != UNSETTLED_NS
    assert state._replace(**{name: 0}) == FileState(10, 5, 6, 7)._replace(**{name: 0})


def test_inodes_of_64_bits_stay_apart() -> None:
    inodes = [0, 1, MOST, 2**63, 2**64 - 1]
    found = [state_of(_Status(inode=inode)).inode for inode in inodes]
    assert len(set(found)) == len(inodes)
    assert all(-(2**63) <= inode <= MOST for inode in found)
