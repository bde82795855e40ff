"""Copies of a cache to and from a real S3 server: complete, verified and resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from leukemia_data.caches.manifest import MANIFEST_NAME, load_manifest
from leukemia_data.caches.transfer import CopyReport, cache_folder, pull_cache, push_cache
from leukemia_data.errors import CacheError, StorageError
from leukemia_data.files.lock import lock_cache
from leukemia_data.stores.faults import ConflictError, Retry
from leukemia_data.stores.object_store import ObjectStore
from leukemia_data.stores.url import parse_url

from ...object_server import CORRUPTED, DROPPED, SERVER_ERROR, SLOW_DOWN, TRUNCATED, Fault
from ..helpers import build, cache_dir, flip_bit, make_source, write_cell
from .pushed import put_cache

SIZE, NUM = 16, 40


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,))
    return root


@pytest.fixture
def directory(built, tmp_path) -> Path:
    """A copy of the cache that a test may change."""
    return Path(shutil.copytree(cache_dir(built / "cache", SIZE), tmp_path / "16-own"))


def no_wait(seconds: float) -> None:
    """Retries without waits."""


def store_at(url: str, num_attempts: int = 6) -> ObjectStore:
    return ObjectStore(parse_url(url), Retry(num_attempts=num_attempts, sleep=no_wait))


def push(directory: Path, url: str, *, is_verify: bool = False, num_attempts: int = 6) -> CopyReport:
    moved: list[int] = []
    report = push_cache(
        directory, store_at(url, num_attempts), num_threads=3, is_verify=is_verify, progress=moved.append
    )
    assert sum(moved) == report.num_bytes
    return report


def pull(url: str, target: Path, num_attempts: int = 6) -> CopyReport:
    store, moved = store_at(url, num_attempts), []
    report = pull_cache(store, store.read(MANIFEST_NAME), target, num_threads=3, progress=moved.append)
    assert sum(moved) == report.num_bytes
    return report


def files_of(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in sorted(load_manifest(directory).file_names())}


def stored(server, url: str) -> dict[str, bytes]:
    prefix = url.removeprefix("s3://").partition("/")[2]
    return {name.removeprefix(f"{prefix}/"): server.read(f"{url}{name[len(prefix) :]}") for name in server.names(url)}


@pytest.fixture
def url(faulty_s3) -> str:
    return f"{faulty_s3.server.make_bucket()}/caches/cells/16-x"


# --- push -----------------------------------------------------------------------------------------------------


def test_push_copies_every_byte_with_the_manifest_last_and_only_once(directory, url, faulty_s3):
    report = push(directory, url)
    assert stored(faulty_s3.server, url) == files_of(directory)
    assert report.num_sent == report.num_files == len(load_manifest(directory).shards) + 1
    puts = faulty_s3.seen("^PUT .*16-x/")
    assert puts[-1].endswith(f"/{MANIFEST_NAME}")
    assert len(puts) == report.num_files + 1
    again = push(directory, url)
    assert (again.num_sent, again.sent_bytes, again.num_bytes) == (0, 0, report.num_bytes)
    assert faulty_s3.seen("^PUT .*16-x/") == puts


def test_interrupted_push_is_no_cache_and_continues(directory, url, faulty_s3):
    name = load_manifest(directory).shards[2].name
    faulty_s3.faults.append(Fault(SERVER_ERROR, f"PUT .*{name}"))
    with pytest.raises(StorageError, match=name):
        push(directory, url, num_attempts=2)
    there = stored(faulty_s3.server, url)
    assert MANIFEST_NAME not in there
    faulty_s3.faults.clear()
    report = push(directory, url)
    assert report.num_sent == report.num_files - len(there)
    assert stored(faulty_s3.server, url) == files_of(directory)


def test_damaged_shard_is_not_pushed(directory, url, faulty_s3):
    shard = load_manifest(directory).shards[1]
    flip_bit(directory / shard.name, shard.images_offset_bytes + 5)
    with pytest.raises(CacheError, match=rf"{shard.name} is damaged or missing: `ldata verify .* --repair`"):
        push(directory, url)
    there = stored(faulty_s3.server, url)
    assert MANIFEST_NAME not in there
    assert shard.name not in there


def test_only_verify_finds_an_object_of_the_right_size_with_other_bytes(directory, url, faulty_s3):
    push(directory, url)
    name = load_manifest(directory).shards[0].name
    content = bytearray((directory / name).read_bytes())
    content[-1] ^= 1
    faulty_s3.server.write(f"{url}/{name}", bytes(content))
    assert push(directory, url).num_sent == 0
    report = push(directory, url, is_verify=True)
    assert (report.num_sent, report.sent_bytes) == (1, len(content))
    assert stored(faulty_s3.server, url) == files_of(directory)


def test_newer_state_takes_over_shards_and_removes_nothing(built, tmp_path, url, faulty_s3):
    source = Path(shutil.copytree(built / "source", tmp_path / "source"))
    caches = Path(shutil.copytree(built / "cache", tmp_path / "cache"))
    directory = cache_dir(caches, SIZE)
    push(directory, url)
    before = stored(faulty_s3.server, url)
    write_cell(source / "blast" / "p1" / "new.png", 999)
    build(source, caches, sizes_px=(SIZE,))
    report = push(directory, url)
    assert 0 < report.num_sent < report.num_files
    after = stored(faulty_s3.server, url)
    assert after[MANIFEST_NAME] == (directory / MANIFEST_NAME).read_bytes()
    assert before.keys() < after.keys()


def test_another_cache_is_not_written_over(built, directory, url, tmp_path, faulty_s3):
    push(directory, url)
    build(built / "source", tmp_path / "other", sizes_px=(24,))
    with pytest.raises(CacheError, match=r"holds another cache \(tiny, 16 px"):
        push(cache_dir(tmp_path / "other", 24), url)


def test_manifest_that_changed_meanwhile_is_not_written_over(directory, url, faulty_s3):
    other = json.dumps({"format": "of somebody else"}).encode()

    def somebody_commits(num_bytes: int) -> None:
        faulty_s3.server.write(f"{url}/{MANIFEST_NAME}", other)

    with pytest.raises(ConflictError, match=r"changed by another process"):
        push_cache(directory, store_at(url), num_threads=1, is_verify=False, progress=somebody_commits)
    assert faulty_s3.server.read(f"{url}/{MANIFEST_NAME}") == other


# --- pull -----------------------------------------------------------------------------------------------------


def test_pull_copies_every_byte_and_only_what_is_missing_or_damaged(directory, url, faulty_s3, tmp_path):
    put_cache(directory, faulty_s3.server, url)
    target = tmp_path / "pulled" / "16-x"
    report = pull(url, target)
    assert files_of(target) == files_of(directory)
    assert report.num_sent == report.num_files
    assert pull(url, target).num_sent == 0
    shards = load_manifest(directory).shards
    (target / shards[0].name).unlink()
    flip_bit(target / shards[1].name, shards[1].images_offset_bytes)
    assert pull(url, target).num_sent == 2
    assert files_of(target) == files_of(directory)


def test_interrupted_pull_is_no_cache_and_continues(directory, url, faulty_s3, tmp_path):
    put_cache(directory, faulty_s3.server, url)
    name, target = load_manifest(directory).shards[2].name, tmp_path / "16-x"
    faulty_s3.faults.append(Fault(CORRUPTED, f"GET .*{name}"))
    with pytest.raises(StorageError, match=rf"{name} is damaged: its digest is"):
        pull(url, target)
    assert not (target / MANIFEST_NAME).exists()
    assert list(target.glob("*.partial")) == []
    here = len(list(target.glob("*.h5")))
    faulty_s3.faults.clear()
    report = pull(url, target)
    assert report.num_sent == report.num_files - here
    assert files_of(target) == files_of(directory)


def test_copies_through_a_faulty_network_are_the_same(directory, url, faulty_s3, tmp_path):
    kinds = (SERVER_ERROR, SLOW_DOWN, DROPPED, TRUNCATED)
    faulty_s3.faults += [Fault(kind, "16-x/", share=0.08) for kind in kinds]
    push(directory, url, num_attempts=12)
    pull(url, tmp_path / "16-x", num_attempts=12)
    assert files_of(tmp_path / "16-x") == files_of(directory)
    assert faulty_s3.num_failed > 0


def test_pull_does_not_wait_and_overwrites_no_other_cache(built, directory, url, faulty_s3, tmp_path):
    put_cache(directory, faulty_s3.server, url)
    with lock_cache(tmp_path / "16-x"), pytest.raises(CacheError, match="in use by another process"):
        pull(url, tmp_path / "16-x")
    build(built / "source", tmp_path / "other", sizes_px=(24,))
    other = cache_dir(tmp_path / "other", 24)
    before = files_of(other)
    with pytest.raises(CacheError, match=r"holds another cache \(tiny, 24 px"):
        pull(url, other)
    assert files_of(other) == before


@pytest.mark.parametrize("name", ["..", "", "a/b", "c:", "a\\b", "line\nbreak"])
def test_name_that_leaves_the_folder_is_refused(directory, name):
    manifest = load_manifest(directory)
    assert cache_folder(manifest) == ("cells", f"16-{manifest.fingerprint[:12]}")
    with pytest.raises(CacheError, match="no name of a folder"):
        cache_folder(replace(manifest, name=name))
