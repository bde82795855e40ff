"""Local copies: which files are kept, removed and waited for. The store is fsspec's, in memory."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.caches.local_copies import Fetched, LocalCopies, ShardFetcher, default_copies_dir
from leukemia_data.caches.manifest import IndexEntry
from leukemia_data.caches.remote_cache import open_remote_cache
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.stores.object_store import ObjectStore, open_store

from ..helpers import build, cache_dir, make_source

SIZE_BYTES = 1000


@pytest.fixture
def store() -> ObjectStore:
    return open_store(f"memory://{uuid.uuid4().hex}/cache")


def put(store: ObjectStore, number: int) -> IndexEntry:
    """An object of 1,000 bytes, and its entry in a manifest."""
    data = bytes([number]) * SIZE_BYTES
    digest = bytes_digest(data).hex()
    entry = IndexEntry(f"shard-{digest[:16]}.h5", len(data), digest)
    store.write(entry.name, data)
    return entry


def used_at(stage: LocalCopies, entry: IndexEntry, seconds: int) -> None:
    os.utime((stage.directory / entry.name), (seconds, seconds))


def test_nothing_is_written_before_something_is_fetched(tmp_path, store):
    stage = LocalCopies(tmp_path / "stage")
    entry = put(store, 1)
    assert not stage.holds(entry)
    assert not stage.directory.exists()
    assert pickle.loads(pickle.dumps(stage)).fetch(store, entry) is Fetched.HERE
    assert stage.holds(entry)
    assert stage.is_intact(entry)
    assert (stage.directory / entry.name).read_bytes() == store.read(entry.name)


def test_the_least_recently_used_file_is_removed_first_and_kept_files_stay(tmp_path, store):
    stage = LocalCopies(tmp_path, 3 * SIZE_BYTES)
    oldest, old, new, next_one = (put(store, number) for number in range(4))
    for seconds, entry in enumerate((oldest, old, new), 1):
        assert stage.fetch(store, entry) is Fetched.HERE
        used_at(stage, entry, seconds)
    stage.use(oldest)
    assert stage.fetch(store, next_one) is Fetched.HERE
    assert [stage.holds(entry) for entry in (oldest, old, new, next_one)] == [True, False, True, True]
    assert stage.fetch(store, old, keep={oldest.name, next_one.name}) is Fetched.HERE
    assert [stage.holds(entry) for entry in (oldest, old, new, next_one)] == [True, True, False, True]
    assert stage.fetch(store, new, keep={oldest.name, old.name, next_one.name}) is Fetched.NO_ROOM
    assert not stage.holds(new)
    assert len(list(tmp_path.glob("*.h5"))) == 3


def test_nothing_goes_for_a_file_that_would_not_fit_all_the_same(tmp_path, store):
    stage = LocalCopies(tmp_path, 2 * SIZE_BYTES)
    first, second, third = (put(store, number) for number in range(3))
    assert stage.fetch(store, first) is Fetched.HERE
    assert stage.fetch(store, second) is Fetched.HERE
    assert LocalCopies(tmp_path, SIZE_BYTES // 2).fetch(store, third) is Fetched.NO_ROOM
    assert stage.holds(first)
    assert stage.holds(second)


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_count(tmp_path, store):
    dead, living = tmp_path / "shard-0.h5.abc.partial", tmp_path / "shard-1.h5.reserved"
    for path in (dead, living, tmp_path / "shard-2.h5.reserved"):
        path.write_bytes(bytes(SIZE_BYTES))
    os.utime(dead, (1, 1))
    os.utime(tmp_path / "shard-2.h5.reserved", (1, 1))
    assert LocalCopies(tmp_path, 2 * SIZE_BYTES - 1).fetch(store, put(store, 5)) is Fetched.NO_ROOM
    assert LocalCopies(tmp_path, 2 * SIZE_BYTES).fetch(store, put(store, 5)) is Fetched.HERE
    assert not dead.exists()
    assert living.exists()


class _Held(ObjectStore):
    """Downloads begin, and end when the test says so."""

    begun: threading.Event
    go_on: threading.Event

    def download(self, name: str, file: Path, progress: Callable[[int], object] | None = None) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        super().download(name, file, progress)


@pytest.fixture
def held(store) -> _Held:
    store.__class__ = _Held
    store.begun, store.go_on = threading.Event(), threading.Event()
    return store


def test_a_shard_that_another_thread_copies_is_busy(tmp_path, held):
    entry, found = put(held, 1), []
    first = threading.Thread(target=lambda: found.append(LocalCopies(tmp_path).fetch(held, entry)))
    first.start()
    assert held.begun.wait(30)
    assert LocalCopies(tmp_path).fetch(held, entry) is Fetched.BUSY
    held.go_on.set()
    first.join()
    assert found == [Fetched.HERE]
    assert LocalCopies(tmp_path).fetch(held, entry) is Fetched.HERE


def test_closing_ends_the_threads_and_drops_what_was_not_begun(tmp_path, held):
    entries = [put(held, number) for number in range(12)]
    stager = ShardFetcher(LocalCopies(tmp_path), held, entries, frozenset(), lambda number: None)
    stager.want(range(12))
    assert held.begun.wait(30)
    waiting = threading.Thread(target=stager.wait, args=([11],))
    waiting.start()
    stager.stop()
    held.go_on.set()
    stager.close()
    waiting.join(30)
    assert not waiting.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name == "shard-copies"]
    assert 1 <= len(list(tmp_path.glob("*.h5"))) < 12
    stager.want([11])
    assert not [thread for thread in threading.enumerate() if thread.name == "shard-copies"]


def test_unreferenced_reader_ends_its_threads(tmp_path, store):
    build(make_source(tmp_path / "source", 24), tmp_path / "cache", sizes_px=(16,))
    for path in cache_dir(tmp_path / "cache").iterdir():
        store.write(path.name, path.read_bytes())
    cache = open_remote_cache(store, LocalCopies(tmp_path / "stage"))
    stager = cache.reader._fetcher
    cache.reader.image(3)
    assert not stager._is_closed
    del cache
    assert stager._is_closed
    stager.close()


def test_full_disk_is_no_error_of_the_training(tmp_path, store, monkeypatch):
    def fail(name: str, file: Path, progress: object = None) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    entry = put(store, 1)
    monkeypatch.setattr(store, "download", fail)
    assert LocalCopies(tmp_path).fetch(store, entry) is Fetched.NO_ROOM
    assert not list(tmp_path.glob("shard-*"))


def test_default_place_of_each_system():
    home = Path("/home/ada")
    assert default_copies_dir({"LDATA_STAGE": "/fast"}, "linux", home) == Path("/fast")
    assert default_copies_dir({"LDATA_LOCAL_COPIES": "/new", "LDATA_STAGE": "/fast"}, "linux", home) == Path("/new")
    assert default_copies_dir({"XDG_CACHE_HOME": "/x"}, "linux", home) == Path("/x/leukemia-cells/stage")
    assert default_copies_dir({}, "darwin", home) == home / "Library" / "Caches" / "leukemia-cells" / "stage"
    assert default_copies_dir({"LOCALAPPDATA": "/L"}, "win32", home) == Path("/L/leukemia-cells/stage")


def test_without_room_for_one_shard_others_of_its_size_are_not_tried(tmp_path, store, monkeypatch):
    entries = [put(store, number) for number in range(40)]
    stage, fetched = LocalCopies(tmp_path, 3 * SIZE_BYTES), []
    fetch = stage.fetch
    monkeypatch.setattr(stage, "fetch", lambda *given: (fetched.append(given[1]), fetch(*given))[1])
    stager = ShardFetcher(stage, store, entries, frozenset(entry.name for entry in entries), lambda number: None)
    stager.want(range(40))
    stager.wait(range(40))
    stager.close()
    assert sum(stage.holds(entry) for entry in entries) == 3
    # Four threads may be copying when the first finds no room.
    assert len(fetched) <= 3 + 4
