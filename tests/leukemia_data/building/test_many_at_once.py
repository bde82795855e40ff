"""Simultaneous builds, gc and readers of one cache, and wrong clocks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.building.garbage import CollectReport, collect_garbage
from leukemia_data.building.shard_task import ShardResult, ShardTask
from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.manifest import find_current, source_state
from leukemia_data.files.lock import HOLDER_NAME, LOCK_NAME, SOFT_LOCK_NAME
from leukemia_data.sources.source import list_source

from ...forked_python import forked_python
from ..helpers import (
    LISTED_NS,
    OLD_NS,
    adopt_states,
    all_shards,
    build,
    cache_dir,
    fresh_shards,
    image_paths,
    make_source,
    python_environment,
    run_here,
    work_done,
    write_cell,
)

NUM = 24
READ = """
import hashlib, sys
from pathlib import Path
import numpy as np
from leukemia_data.caches.cache import open_cache
with open_cache(Path(sys.argv[1])) as cache:
    reader = cache.reader
    print("open", flush=True)
    for line in sys.stdin:
        print(hashlib.sha256(reader.gather(np.arange(len(cache))).tobytes()).hexdigest(), flush=True)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with a source and its cache. Read it, never change it."""
    folder = tmp_path_factory.mktemp("many")
    build(make_source(folder / "source", NUM), folder / "cache")
    return folder


@pytest.fixture
def source(built, tmp_path) -> Path:
    return Path(shutil.copytree(built / "source", tmp_path / "source"))


@pytest.fixture
def cache(built, source, tmp_path) -> Path:
    cache = Path(shutil.copytree(built / "cache", tmp_path / "cache"))
    adopt_states(source, cache)
    return cache


def change_all(source: Path, mtime_ns: int = OLD_NS + 5) -> None:
    for number, path in enumerate(image_paths(source)):
        write_cell(path, 900 + number, mtime_ns=mtime_ns)


def pixels_digest(directory: Path) -> str:
    with open_cache(directory) as cache:
        return hashlib.sha256(SampleReader(cache).gather(np.arange(len(cache))).tobytes()).hexdigest()


# --- readers


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps mapped files")
def test_process_that_reads_keeps_its_snapshot_through_builds_and_gc(source, cache):
    directory = cache_dir(cache)
    before = pixels_digest(directory)
    command = [*forked_python(), "-c", READ, str(directory)]
    with subprocess.Popen(
        command, env=python_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def read() -> str:
            print("read", file=reader.stdin, flush=True)
            return reader.stdout.readline().strip()

        assert reader.stdout.readline() == "open\n"
        change_all(source)
        build(source, cache)
        assert read() == before
        assert collect_garbage(cache, remove=True).garbage
        assert read() == before
        reader.stdin.close()
        assert reader.wait(timeout=20) == 0
    assert pixels_digest(directory) != before


# --- gc


def test_gc_passes_over_what_a_build_is_writing(source, cache, tmp_path):
    change_all(source)
    reports: list[CollectReport] = []

    def collect_meanwhile(tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardResult]]:
        for done in run_here(tasks):
            reports.append(collect_garbage(cache, remove=True))
            yield done

    summary = build(source, cache, engine=collect_meanwhile)
    assert work_done(summary) == (NUM, 0, 0)
    assert len(reports) > 2
    for report in reports:
        assert report.garbage == ()
        assert [f"(build, process {os.getpid()} on " in reason for reason in report.skipped] == [True, True]
    assert all_shards(cache) == fresh_shards(source, tmp_path / "fresh")


def test_gc_leaves_nothing_of_a_dead_lock_holder(cache):
    directory = cache_dir(cache)
    (directory / HOLDER_NAME).write_text('{"work": "build", "pid": 1, "host": "a", "since": "b"}', encoding="utf-8")
    for kind in ("break", "restore"):
        (directory / f"{SOFT_LOCK_NAME}.{kind}.4711.{'0' * 32}").write_bytes(b"4711\nhost\n")
    collect_garbage(cache, remove=True)
    assert sorted(path.name for path in directory.iterdir() if path.name.startswith(".")) == [LOCK_NAME]


def test_gc_removes_what_it_can(cache, monkeypatch):
    """As on Windows, where a mapped file cannot be removed."""
    directory = cache_dir(cache)
    names = [f"shard-{digit * 16}.h5" for digit in "012"]
    for name in names:
        (directory / name).write_bytes(b"12345")
    unlink = Path.unlink

    def refuse_one(path: Path, **options: bool) -> None:
        if path.name == names[1]:
            raise PermissionError(13, "The process cannot access the file", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refuse_one)
    report = collect_garbage(cache, remove=True)
    assert [path.name for item in report.garbage for path in item.files] == [names[0], names[2]]
    assert report.num_bytes == 10
    assert [names[1] in reason and "cannot be removed now" in reason for reason in report.skipped] == [True]
    monkeypatch.undo()
    assert collect_garbage(cache, remove=True).num_bytes == 5


# --- rights


def test_files_have_the_rights_that_the_umask_leaves(source, tmp_path):
    if os.name == "nt":
        pytest.skip("Windows has no such permissions")
    for umask in (0o002, 0o027):
        root = tmp_path / f"{umask:03o}"
        before = os.umask(umask)
        try:
            build(source, root)
        finally:
            os.umask(before)
        paths = [root, *root.rglob("*")]
        assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o777 & ~umask}
        assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o666 & ~umask}


def test_a_cache_that_may_only_be_read_is_read(cache, shared_folder, without_rights):
    directory = shared_folder / "16-copy"
    cache_dir(cache).rename(directory)
    before = pixels_digest(directory)
    with without_rights(shared_folder):
        assert pixels_digest(directory) == before
        assert "Permission denied" in collect_garbage(directory, remove=True).skipped[0]
    assert pixels_digest(directory) == before


# --- clocks


@pytest.mark.parametrize("ahead_ns", [-1_000_000_000, 0, 10**9 * 3600 * 24 * 365])
def test_a_file_from_the_future_is_read_at_every_build(source, cache, ahead_ns):
    """Its clock, or this machine's, was wrong: another content with the same size and time may follow."""
    path = image_paths(source)[3]
    mtime_ns = LISTED_NS + ahead_ns
    write_cell(path, 71, mtime_ns=mtime_ns)
    assert build(source, cache).num_processed == 1
    size_bytes = path.stat().st_size
    unchanged = build(source, cache)
    assert unchanged.num_processed == 0
    assert unchanged.num_copied > 0
    write_cell(path, 72, mtime_ns=mtime_ns)
    assert path.stat().st_size == size_bytes
    listing = list_source([source])
    assert find_current(cache_dir(cache), source_state(listing.classes, listing.records)) is None
    assert build(source, cache).num_processed == 1


def test_clock_that_went_back_between_builds_hides_no_change(source, cache, tmp_path):
    """The later change has the earlier time, and the later build the earlier clock."""
    hour_ns = 3600 * 10**9
    build(source, cache, listed_at_ns=LISTED_NS + 10 * hour_ns)
    change_all(source, mtime_ns=OLD_NS - hour_ns)
    listing = list_source([source])
    assert find_current(cache_dir(cache), source_state(listing.classes, listing.records)) is None
    assert build(source, cache, listed_at_ns=OLD_NS).num_processed == NUM
    assert all_shards(cache) == fresh_shards(source, tmp_path / "fresh")


def test_clock_that_went_back_before_the_files_were_written_trusts_none(source, cache, tmp_path):
    """All files are newer than the clock: each is read again, whatever its time says."""
    assert work_done(build(source, cache, listed_at_ns=OLD_NS - 10**12)) == (0, 0, NUM)
    change_all(source, mtime_ns=OLD_NS)
    assert build(source, cache, listed_at_ns=OLD_NS - 10**12).num_processed == NUM
    assert all_shards(cache) == fresh_shards(source, tmp_path / "fresh")
