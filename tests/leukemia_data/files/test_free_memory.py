from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from leukemia_data.files.limits import free_ram_bytes


def write_group(folder: Path, limit: str, used: int, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(f"{limit}\n", encoding="ascii")
    (folder / names[1]).write_text(f"{used}\n", encoding="ascii")


@pytest.fixture
def own(tmp_path) -> Path:
    return tmp_path / "own"


def test_a_group_of_the_second_kind_limits_what_is_free(tmp_path, own):
    own.write_text("0::/job/step\n", encoding="utf-8")
    write_group(tmp_path / "job" / "step", "max", 500)
    write_group(tmp_path / "job", "3000000", 1000000)
    assert free_ram_bytes(tmp_path, own) == 2_000_000


def test_a_group_of_the_first_kind_limits_what_is_free(tmp_path, own):
    own.write_text("5:cpu:/\n4:memory:/docker/abc\n0::/\n", encoding="utf-8")
    # Inside the container its own group is the root.
    write_group(tmp_path / "memory", "5000000", 1000000, version=1)
    assert free_ram_bytes(tmp_path, own) == 4_000_000


def test_a_group_that_uses_more_than_its_limit_leaves_nothing(tmp_path, own):
    own.write_text("0::/\n", encoding="utf-8")
    write_group(tmp_path, "1000", 2000)
    assert free_ram_bytes(tmp_path, own) == 0


def test_without_groups_or_limits_it_is_the_machines(tmp_path, own):
    for text in (None, "0::/\n"):
        if text is not None:
            own.write_text(text, encoding="utf-8")
            write_group(tmp_path, "9223372036854771712", 1000)
        assert free_ram_bytes(tmp_path, own) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_this_process_has_some_memory_left():
    assert 10**6 < free_ram_bytes() <= psutil.virtual_memory().total
