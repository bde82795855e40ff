from __future__ import annotations

import os

import pytest

from leukemia_data.errors import ImageError
from leukemia_data.sources.source_file import read_file


def test_bytes_come_with_the_state_of_the_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(200)))
    os.utime(path, ns=(5, 1_500_000_000_123_456_700))
    file = read_file(path)
    assert file.data.tobytes() == bytes(range(200))
    assert (file.size_bytes, file.mtime_ns) == (200, path.stat().st_mtime_ns)


def test_reason_is_told_where_a_file_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match="the file is missing"):
        read_file(tmp_path / "absent.bmp")
    with pytest.raises(ImageError, match="cannot be read"):
        read_file(tmp_path)
