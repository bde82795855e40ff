"""Builds into a store: same bytes as on a disk, resumed, incremental, and two commits at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import pytest

from leukemia_data.building.build import FailurePolicy, run_locked_build
from leukemia_data.building.build_request import BuildSummary
from leukemia_data.building.garbage import MAX_AGE_NS, collect_garbage
from leukemia_data.building.plan import BuildPlan, PlanInputs, plan_build
from leukemia_data.building.shard_task import RECEIPTS_DIR, TaskRunner
from leukemia_data.building.store_commit import StoreCommitTarget, StorePlace, stored_place
from leukemia_data.caches.manifest import MANIFEST_NAME, cache_dir_name, load_manifest
from leukemia_data.caches.remote_cache import StoredCache, read_manifest
from leukemia_data.caches.verify import verify
from leukemia_data.errors import BuildError, StorageError
from leukemia_data.records.fingerprint import cache_fingerprint
from leukemia_data.sources.source import list_source
from leukemia_data.stores import object_store
from leukemia_data.stores.faults import Retry
from leukemia_data.stores.object_store import ObjectStore, StoredUrl, stored_url
from leukemia_data.stores.url import parse_url

from ...object_server import DROPPED, SERVER_ERROR, SLOW_DOWN, TRUNCATED, Fault
from ..consoles import ListConsole
from ..helpers import (
    CAPACITY,
    LISTED_NS,
    NAME,
    SIZES,
    TINY_RECIPE,
    fresh_shards,
    image_paths,
    make_source,
    run_here,
    work_done,
    write_cell,
)

DIR_NAMES = [cache_dir_name(size, cache_fingerprint(TINY_RECIPE, size, cv2.__version__)) for size in SIZES]


@pytest.fixture
def mirror(tmp_path) -> StorePlace:
    """The mirror of an empty folder of a store in memory."""
    return stored_place(parse_url(f"memory://{tmp_path.name}-{id(tmp_path)}/caches"), tmp_path / "stage")


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source")


def plan_stored(
    source: Path | StoredUrl, mirror: StorePlace, recheck_ns: int | None = None
) -> tuple[BuildPlan, dict[Path, StoredCache]]:
    directories = [mirror.root / NAME / name for name in DIR_NAMES]
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
    caches = dict(mirror.stored(directories))
    listing = list_source([source])
    inputs = PlanInputs(
        name=NAME,
        cache_root=mirror.root,
        recipe=TINY_RECIPE,
        sizes_px=SIZES,
        classes=listing.classes,
        opencv_version=cv2.__version__,
        shard_capacity=CAPACITY,
        recheck_ns=recheck_ns,
    )
    plan = plan_build(inputs, listing.records, stored=caches)
    return plan, caches


def run_stored_plan(planned: tuple[BuildPlan, dict[Path, StoredCache]], engine: TaskRunner = run_here) -> BuildSummary:
    plan, caches = planned
    return run_locked_build(
        plan,
        run_tasks=engine,
        policy=FailurePolicy(),
        # Images of a store have just been written.
        listed_at_ns=max(LISTED_NS, time.time_ns() + 10**10),
        progress=lambda _: None,
        commit_target=StoreCommitTarget(caches),
    )


def build_stored(source: Path | StoredUrl, mirror: StorePlace, engine: TaskRunner = run_here) -> BuildSummary:
    return run_stored_plan(plan_stored(source, mirror), engine)


def cache_stores(mirror: StorePlace) -> dict[str, ObjectStore]:
    return {f"{NAME}/{name}": (mirror.url / NAME / name).store for name in DIR_NAMES}


def stored_shards(mirror: StorePlace) -> dict[str, dict[str, bytes]]:
    """By cache: name and bytes of each shard that its manifest names."""
    return {
        folder: {shard.name: store.read(shard.name) for shard in read_manifest(store).shards}
        for folder, store in cache_stores(mirror).items()
    }


def no_wait(seconds: float) -> None:
    """Retries without waits."""


def stops_after(num_tasks: int) -> TaskRunner:
    """An engine that dies after so many tasks."""

    def run(tasks: Sequence[object]):
        for position, result in run_here(tasks):
            if position == num_tasks:
                raise KeyboardInterrupt
            yield position, result

    return run


def test_a_build_has_the_bytes_of_one_on_a_disk(source, mirror, tmp_path):
    summary = build_stored(source, mirror)
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")
    assert [str(cache.directory) for cache in summary.caches] == [f"{mirror.url}/{NAME}/{name}" for name in DIR_NAMES]
    for folder, store in cache_stores(mirror).items():
        local = load_manifest(tmp_path / "fresh" / folder)
        assert replace(read_manifest(store), library_versions={}) == replace(local, library_versions={})
        assert store.read(local.index.name) == (tmp_path / "fresh" / folder / local.index.name).read_bytes()
        # Only the cache is left, in the store and in the mirror.
        assert set(store.entries()) == local.file_names()
    assert not list(mirror.root.rglob("shard-*"))


def test_only_what_changed_is_made(source, mirror, tmp_path):
    build_stored(source, mirror)
    assert work_done(build_stored(source, mirror)) == (0, 0, 40)
    write_cell(source / "blast" / "p0" / "new.png", 99)
    image_paths(source)[3].unlink()
    shutil.rmtree(mirror.root)
    processed, copied, kept = work_done(build_stored(source, mirror))
    assert processed == 1
    assert copied + kept == 39
    assert 0 < copied < 39
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")


def test_files_that_are_read_again_are_copied_where_their_digests_agree(source, mirror, tmp_path):
    build_stored(source, mirror)
    for path in image_paths(source):
        path.chmod(0o600)
    assert work_done(build_stored(source, mirror)) == (0, 40, 0)
    write_cell(image_paths(source)[0], 99)
    assert work_done(run_stored_plan(plan_stored(source, mirror, LISTED_NS))) == (1, 39, 0)
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")


def test_a_recheck_of_images_in_a_store(source, mirror, s3, tmp_path):
    images = stored_url(parse_url(s3.make_bucket()))
    for path in image_paths(source):
        images.store.write(path.relative_to(source).as_posix(), path.read_bytes())
    build_stored(images, mirror)
    assert work_done(build_stored(images, mirror)) == (0, 0, 40)
    assert work_done(run_stored_plan(plan_stored(images, mirror, LISTED_NS))) == (0, 40, 0)
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")


def test_lost_and_damaged_objects_are_made_anew(source, mirror, tmp_path):
    build_stored(source, mirror)
    expected = stored_shards(mirror)
    store = next(iter(cache_stores(mirror).values()))
    names = [shard.name for shard in read_manifest(store).shards]
    store.delete(names[0])
    store.write(names[1], b"short")
    assert work_done(build_stored(source, mirror))[2] < 40
    assert stored_shards(mirror) == expected
    store.write(MANIFEST_NAME, b"{}")
    build_stored(source, mirror)
    assert stored_shards(mirror) == expected


def test_an_interrupted_build_continues(source, mirror, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_stored(source, mirror, stops_after(3))
    store = next(iter(cache_stores(mirror).values()))
    assert store.stat(MANIFEST_NAME) is None
    assert len(store.entries(RECEIPTS_DIR)) == 4
    # On another machine, which has nothing of the first one's.
    shutil.rmtree(mirror.root)
    processed, copied, _ = work_done(build_stored(source, mirror))
    assert processed + copied == 40
    assert copied > 0
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")
    assert not store.entries(RECEIPTS_DIR)


def test_a_false_receipt_is_not_believed(source, mirror, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_stored(source, mirror, stops_after(1))
    for store in cache_stores(mirror).values():
        for name in store.entries():
            if name.startswith("shard-"):
                store.write(name, store.read(name)[:-1] + b"?")
            elif name.startswith(RECEIPTS_DIR):
                assert b"shard-" in store.read(name)
    assert work_done(build_stored(source, mirror)) == (40, 0, 0)
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")


def test_of_two_builds_at_once_the_second_to_commit_is_refused(source, mirror, tmp_path):
    early = plan_stored(source, mirror)
    other = StorePlace(mirror.url, tmp_path / "other")
    write_cell(source / "blast" / "p0" / "new.png", 99)
    build_stored(source, other)
    expected = stored_shards(mirror)
    with pytest.raises(BuildError, match="another build committed while this one was at work"):
        run_stored_plan(early)
    assert stored_shards(mirror) == expected == fresh_shards(source, tmp_path / "fresh")
    assert work_done(build_stored(source, mirror)) == (0, 0, 41)


def test_two_builds_of_the_same_images_may_both_commit(source, mirror, tmp_path):
    early = plan_stored(source, mirror)
    build_stored(source, StorePlace(mirror.url, tmp_path / "other"))
    run_stored_plan(early)
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")


def test_a_shard_missing_at_the_commit_is_an_error(source, mirror):
    build_stored(source, mirror)
    write_cell(source / "blast" / "p0" / "new.png", 99)
    planned = plan_stored(source, mirror)
    plan, _ = planned
    kept = next(kept for kept in plan.targets[0].kept if kept is not None)
    store = (mirror.url / NAME / DIR_NAMES[0]).store
    before = store.read(MANIFEST_NAME)
    store.delete(kept.entry.name)
    with pytest.raises(BuildError, match=r"1 shards are gone \(shard-.*build again"):
        run_stored_plan(planned)
    assert store.read(MANIFEST_NAME) == before
    build_stored(source, mirror)


def test_gc_takes_what_is_old_and_has_no_name(source, mirror):
    build_stored(source, mirror)
    first = {folder: set(store.entries()) for folder, store in cache_stores(mirror).items()}
    image_paths(source)[0].unlink()
    build_stored(source, mirror)
    folder, store = next(iter(cache_stores(mirror).items()))
    for name in ("notes.txt", "shard-mine.h5", "sub/shard-0123456789abcdef.h5"):
        store.write(name, b"the user's")
    store.write(f"{RECEIPTS_DIR}/{'0' * 32}.json", b"{}")
    named = read_manifest(store).file_names()
    everything = set(store.entries())
    now = time.time_ns()
    young = collect_garbage(mirror.url, remove=True, now_ns=now + MAX_AGE_NS - 10**12)
    assert young.garbage == ()
    tomorrow = now + MAX_AGE_NS + 10**12
    told = collect_garbage(mirror.url, remove=False, now_ns=tomorrow)
    assert set(store.entries()) == everything
    assert collect_garbage(mirror.url, remove=True, now_ns=tomorrow).garbage == told.garbage
    assert {str(found.location) for found in told.garbage} == {f"{mirror.url}/{folder}" for folder in first}
    assert {
        str(file).removeprefix(f"{found.location}/")
        for found in told.garbage
        if str(found.location).endswith(folder)
        for file in found.files
    } == ((first[folder] - named) | {f"{RECEIPTS_DIR}/{'0' * 32}.json"})
    assert set(store.entries()) == named | {"notes.txt", "shard-mine.h5", "sub/shard-0123456789abcdef.h5"}
    store.write(MANIFEST_NAME, b"{}")
    [reason] = collect_garbage(mirror.url, remove=True, now_ns=tomorrow).skipped
    assert "no manifest of a leukemia-cells cache" in reason
    assert named <= set(store.entries())


def test_verify_names_what_is_damaged(source, mirror):
    build_stored(source, mirror)
    store = next(iter(cache_stores(mirror).values()))
    console = ListConsole()
    report = verify(store.url, num_threads=2, console=console)
    assert (report.damages, report.directory, report.num_samples) == ((), store.url, 40)
    assert [(bar.what, bar.total, bar.done) for bar in console.bars] == [("verifying", 40, 40)]
    shards = read_manifest(store).shards
    data = bytearray(store.read(shards[0].name))
    data[shards[0].images_offset_bytes] ^= 1
    store.write(shards[0].name, bytes(data))
    store.delete(shards[1].name)
    found = verify(store.url, num_threads=2).damages
    assert {damage.file for damage in found} == {shards[0].name, shards[1].name}
    assert [len(damage.record_ids) for damage in found if "CRC" in damage.problem] == [1]


def test_a_build_through_a_faulty_server_ends_with_the_same_bytes(faulty_s3, tmp_path, monkeypatch):
    source = make_source(tmp_path / "source", 12)
    monkeypatch.setattr(object_store, "Retry", partial(Retry, sleep=no_wait))
    bucket = stored_url(parse_url(faulty_s3.server.make_bucket()))
    images, caches = bucket / "images", bucket / "caches"
    for path in image_paths(source):
        images.store.write(path.relative_to(source).as_posix(), path.read_bytes())
    mirror = StorePlace(caches, tmp_path / "stage")
    faulty_s3.faults[:] = [Fault(kind, share=0.06) for kind in (SERVER_ERROR, SLOW_DOWN, TRUNCATED, DROPPED)]
    summary = build_stored(images, mirror)
    assert faulty_s3.num_failed > 3
    assert work_done(summary) == (12, 0, 0)
    assert stored_shards(mirror) == fresh_shards(source, tmp_path / "fresh")
    # An unreachable store ends the build instead of quarantining images.
    faulty_s3.faults[:] = [Fault(SERVER_ERROR, "GET .*images/.*png")]
    images.store.write("blast/p0/new.png", image_paths(source)[0].read_bytes()[:-1])
    with pytest.raises(StorageError, match="given up after 6 attempts"):
        build_stored(images, mirror)
