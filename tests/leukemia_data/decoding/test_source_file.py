from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.decoding import decode as source_file
from leukemia_data.decoding.decode import read_file
from leukemia_data.errors import ImageError

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows has neither pipes nor devices among its files")


def test_bytes_come_with_the_state_of_the_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(200)))
    os.utime(path, ns=(5, 1_500_000_000_123_456_700))
    file = read_file(path)
    assert file.data.tobytes() == bytes(range(200))
    status = path.stat()
    assert file.state == (200, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def test_an_empty_file(tmp_path):
    (tmp_path / "x.bmp").touch()
    assert read_file(tmp_path / "x.bmp").data.tobytes() == b""


# --- what cannot be read ----------------------------------------------------------------------------------------


def reason_for(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_file(path)
    return str(caught.value)


def test_nothing_there(tmp_path):
    assert reason_for(tmp_path / "absent.bmp") == "the file is missing"
    assert reason_for(Path("nul\0.bmp")) == "cannot be read: embedded null byte"


def test_a_folder(tmp_path):
    assert reason_for(tmp_path).startswith("a folder, not an image file")


@posix_only
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.bmp")
    assert reason_for(tmp_path / "x.bmp").startswith("a pipe, not an image file")


@posix_only
def test_a_device_is_not_read_for_ever(tmp_path):
    (tmp_path / "x.bmp").symlink_to("/dev/zero")
    assert reason_for(tmp_path / "x.bmp").startswith("a device, not an image file")


@posix_only
def test_a_socket(tmp_path, monkeypatch):
    # Names of sockets may have a hundred letters, and the folder's path has as many.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("x.bmp")
        assert reason_for(tmp_path / "x.bmp").startswith("a socket, not an image file")


@posix_only
@pytest.mark.parametrize("target", ["nowhere.bmp", "x.bmp"])
def test_links_that_lead_nowhere_or_to_themselves(tmp_path, target):
    (tmp_path / "x.bmp").symlink_to(target)
    assert reason_for(tmp_path / "x.bmp").startswith("a link that leads to no file")


@posix_only
def test_a_file_that_may_not_be_read(shared_folder, without_rights: Callable):
    path = shared_folder / "x.bmp"
    path.write_bytes(b"x")
    path.chmod(0)
    with without_rights(shared_folder):
        assert reason_for(path) == "may not be read: give yourself the permission to"


# --- what changes meanwhile -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written over"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "x.bmp"
    path.write_bytes(bytes(5000))
    os.utime(path, ns=(1_500_000_000_000_000_000,) * 2)

    read = np.fromfile

    def read_slowly(file, dtype):
        data = read(file, dtype)
        size = {"grows": 6000, "shrinks": 4000, "is written over": 5000}[change]
        path.write_bytes(bytes(size))
        return data

    monkeypatch.setattr(source_file.np, "fromfile", read_slowly)
    assert reason_for(path).startswith("it changed while it was read: try again")
    monkeypatch.undo()
    assert read_file(path).state.size_bytes == path.stat().st_size


def test_bytes_that_never_came_are_not_taken_for_the_end(tmp_path, monkeypatch):
    path = tmp_path / "x.bmp"
    path.write_bytes(bytes(5000))
    monkeypatch.setattr(source_file.np, "fromfile", lambda file, dtype: np.zeros(4096, dtype))
    assert reason_for(path).startswith("it changed while it was read")
