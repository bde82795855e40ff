"""The limit of open files is raised and never lowered."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from leukemia_data.files.limits import allow_open_files

if sys.platform == "win32":
    pytest.skip("Windows has no limit of open files", allow_module_level=True)

import resource


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def set_soft(soft: int, hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_low_limit_is_raised(limits):
    set_soft(512, limits[1])
    allow_open_files(700)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft >= 700
    assert hard == limits[1]


def test_an_ample_limit_stays(limits):
    set_soft(1000, limits[1])
    allow_open_files(10)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1000, limits[1])


def test_no_more_than_the_system_allows(limits):
    if limits[1] == resource.RLIM_INFINITY:
        pytest.skip("this system has no hard limit")
    set_soft(512, limits[1])
    allow_open_files(limits[1] + 1)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limits[1], limits[1])
