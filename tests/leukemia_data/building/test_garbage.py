from __future__ import annotations

from pathlib import Path

import pytest

from leukemia_data.building.garbage import collect_garbage
from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.files.lock import LOCK_NAME, lock_cache

from ..helpers import OLD_NS, all_shards, build, cache_dir, file_states, image_paths, make_source, write_cell

HEX16 = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path) -> Path:
    """A cache that was rebuilt after a change, so that shards and an index of the first state are left over."""
    source = make_source(tmp_path / "source", 24)
    build(source, tmp_path / "cache")
    write_cell(image_paths(source)[0], 4711, mtime_ns=OLD_NS + 5)
    build(source, tmp_path / "cache")
    return tmp_path / "cache"


def names_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def litter(directory: Path) -> list[Path]:
    """Files of killed builds in a cache directory."""
    receipts = directory / "receipts"
    receipts.mkdir()
    paths = [
        directory / "shard.0123456789ab.partial",
        directory / "index.0123456789ab.partial",
        directory / "manifest.json.0123456789ab.partial",
        directory / f"shard-{HEX16}.h5",
        receipts / f"{HEX16 * 2}.json",
        receipts / f"{HEX16 * 2}.json.0123456789ab.partial",
    ]
    for path in paths:
        path.write_bytes(b"12345")
    return paths


def test_removes_exactly_what_no_manifest_names(cache):
    needed = set()
    for size in (16, 24):
        directory = cache_dir(cache, size)
        manifest = load_manifest(directory)
        names = [shard.name for shard in manifest.shards] + [manifest.index.name, "manifest.json", LOCK_NAME]
        needed |= {(directory / name).relative_to(cache).as_posix() for name in names}
        litter(directory)
    before = names_below(cache)
    shards = all_shards(cache)
    dry = collect_garbage(cache, remove=False)
    assert names_below(cache) == before
    report = collect_garbage(cache, remove=True)
    assert (report.garbage, report.skipped) == (dry.garbage, dry.skipped)
    assert names_below(cache) == needed
    assert {path.relative_to(cache).as_posix() for item in report.garbage for path in item.files} == before - needed
    assert report.num_bytes > 2 * 6 * 5
    assert not (cache_dir(cache) / "receipts").exists()
    assert all_shards(cache) == shards
    assert collect_garbage(cache, remove=True).garbage == ()
    SampleReader(open_cache(cache_dir(cache)))


def test_first_build_that_was_killed_is_all_garbage(tmp_path):
    directory = tmp_path / "cells" / "128-0123456789ab"
    directory.mkdir(parents=True)
    (directory / LOCK_NAME).touch()
    paths = litter(directory)
    [item] = collect_garbage(tmp_path, remove=True).garbage
    assert set(item.files) == set(paths)
    assert names_below(tmp_path) == {f"cells/128-0123456789ab/{LOCK_NAME}"}


FOREIGN = ["shard-1.h5", "shard-notes.h5", "index-old.h5", "index-.h5", "download.partial", "data.h5", "notes.txt"]


def test_foreign_files_in_a_cache_directory_stay(cache):
    directory = cache_dir(cache)
    (directory / "receipts").mkdir()
    for name in [*FOREIGN, "receipts/taxes.json", "receipts/a.partial"]:
        (directory / name).write_bytes(b"mine")
    collect_garbage(cache, remove=True)
    for name in [*FOREIGN, "receipts/taxes.json", "receipts/a.partial"]:
        assert (directory / name).read_bytes() == b"mine"


@pytest.mark.parametrize(
    "marker", [("manifest.json", b'{"name": "web app"}'), ("manifest.json", b"["), (LOCK_NAME, b"4711")]
)
def test_foreign_directories_are_not_even_locked(tmp_path, marker):
    directory = tmp_path / "project" / "app"
    litter_dir = directory / "receipts"
    litter_dir.mkdir(parents=True)
    (directory / marker[0]).write_bytes(marker[1])
    (directory / f"shard-{HEX16}.h5").write_bytes(b"mine")
    (litter_dir / f"{HEX16 * 2}.json").write_bytes(b"mine")
    before = file_states(tmp_path)
    assert collect_garbage(tmp_path, remove=True).garbage == ()
    assert file_states(tmp_path) == before


def test_locked_directory_is_skipped_with_a_note_and_the_other_cleaned(cache):
    locked, free = cache_dir(cache, 16), cache_dir(cache, 24)
    before = file_states(locked)
    with lock_cache(locked):
        report = collect_garbage(cache, remove=True)
    assert [item.location for item in report.garbage] == [free]
    assert len(report.skipped) == 1
    assert str(locked) in report.skipped[0]
    assert {name: state for name, state in file_states(locked).items() if name != LOCK_NAME} == {
        name: state for name, state in before.items() if name != LOCK_NAME
    }


def test_cache_with_a_damaged_manifest_is_left_alone(cache):
    directory = cache_dir(cache)
    path = directory / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    before = names_below(directory)
    report = collect_garbage(cache, remove=True)
    assert names_below(directory) == before
    assert any("manifest.json" in reason for reason in report.skipped)


def test_a_cache_directory_itself_may_be_the_root(cache):
    directory = cache_dir(cache)
    assert [item.location for item in collect_garbage(directory, remove=True).garbage] == [directory]


def test_nothing_there(tmp_path):
    assert collect_garbage(tmp_path / "absent", remove=True).garbage == ()
