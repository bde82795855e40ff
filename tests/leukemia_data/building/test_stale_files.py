"""Replaced files with the same size and modification time, which the next build must find."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from leukemia_data.building.repair import repair_cache
from leukemia_data.building.shard_maker import run_task
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.hdf5_file import hdf5_bytes, read_index
from leukemia_data.caches.manifest import IndexEntry, find_current, load_manifest, save_manifest, source_state
from leukemia_data.files.atomic import UNSETTLED_NS, FileState, state_of
from leukemia_data.records.fingerprint import bytes_digest
from leukemia_data.records.sample_table import MTIME, write_columns
from leukemia_data.sources.source import SourceListing, list_source

from .. import helpers
from ..helpers import LISTED_NS, OLD_NS, SIZES, adopt_states, all_shards, cache_dir, work_done

NUM, NUM_LINKS = 18, 4
# What is made of a file is decided once for all sizes, see test_build.
build, make_plan = (partial(function, sizes_px=SIZES[:1]) for function in (helpers.build, helpers.make_plan))


def write_bmp(path: Path, seed: int) -> None:
    """Random pixels: always of the same size in bytes, with the same modification time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 44, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".bmp", pixels)[1].tobytes())
    os.utime(path, ns=(OLD_NS, OLD_NS))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Folder of two classes; some of its images are links to files that bear no image's name."""
    for number in range(NUM):
        path = tmp_path / "source" / ("blast", "normal")[number % 2] / f"{number:02}.bmp"
        write_bmp(path, number)
        if number >= NUM - NUM_LINKS:
            path.rename(tmp_path / "source" / f"target-{number}")
            path.symlink_to(f"../target-{number}")
    return tmp_path / "source"


def bmps(source: Path) -> list[Path]:
    return sorted(source.rglob("*.bmp"))


def list_folder(source: Path) -> SourceListing:
    return list_source([source])


def list_table(source: Path) -> SourceListing:
    """The same files as the rows of a table."""
    rows = [f"{path.relative_to(source).as_posix()},{path.parent.name}" for path in bmps(source)]
    table = source.with_name("cells.csv")
    table.write_text("\n".join(["Path,label", *rows, ""]), encoding="utf-8")
    return list_source([table], root=source)


# --- changes that keep size and modification time


def rename_in_a_circle(source: Path) -> None:
    """Renumbering: every file gets the name of another."""
    paths = bmps(source)
    for path in paths:
        path.rename(path.with_suffix(".moved"))
    for path, other in zip(paths, [*paths[1:], paths[0]], strict=True):
        path.with_suffix(".moved").rename(other)


def swap_two(source: Path) -> None:
    one, other = bmps(source)[3], bmps(source)[-2]
    one.rename(source / "aside")
    other.rename(one)
    (source / "aside").rename(other)


def delete_one_and_renumber(source: Path) -> None:
    paths = bmps(source)
    paths[2].unlink()
    for earlier, later in pairwise(paths[2:]):
        later.rename(earlier)


def write_in_place(source: Path) -> None:
    for number, path in enumerate(bmps(source)[::3]):
        status, inode = path.stat(), path.stat().st_ino
        write_bmp(path, 500 + number)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_ino == inode


def copy_over(source: Path) -> None:
    """``cp -p`` of one image over another."""
    shutil.copy2(bmps(source)[0], bmps(source)[-1])


def replace_whole(source: Path) -> None:
    """``rsync -t``, and programs that save under another name first."""
    for number, path in enumerate(bmps(source)[::3]):
        write_bmp(source.with_name("fresh.bmp"), 500 + number)
        source.with_name("fresh.bmp").replace(path)


def replace_links(source: Path) -> None:
    """Files of the folder are hard links into another one: to another file there than before."""
    for number, path in enumerate(bmps(source)[:4]):
        elsewhere = source.with_name("elsewhere") / f"{number}.bmp"
        write_bmp(elsewhere, 500 + number)
        path.unlink()
        path.hardlink_to(elsewhere)


def unpack_over(source: Path) -> None:
    """An archive of another edition, whose files have the sizes and times of this one."""
    edition, archive = source.with_name("edition"), source.with_name("edition.zip")
    with zipfile.ZipFile(archive, "w") as packed:
        for number, path in enumerate(bmps(source)):
            write_bmp(edition / "x.bmp", 500 + number)
            packed.write(edition / "x.bmp", path.relative_to(source).as_posix())
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(source)
    for path in bmps(source):
        os.utime(path, ns=(OLD_NS, OLD_NS))


def retarget_links(source: Path) -> None:
    """Symbolic links lead to other files of the same size and time."""
    links = [path for path in bmps(source) if path.is_symlink()]
    targets = [path.readlink() for path in links]
    assert len(links) == NUM_LINKS
    for path, target in zip(links, [*targets[1:], targets[0]], strict=True):
        path.unlink()
        path.symlink_to(target)


CHANGES = [
    rename_in_a_circle,
    swap_two,
    delete_one_and_renumber,
    write_in_place,
    copy_over,
    replace_whole,
    replace_links,
    unpack_over,
    retarget_links,
]


def known_state(listing: SourceListing) -> dict[str, tuple[int, int]]:
    """The state that builds of release 0.1 compared."""
    return {record.record_id: record.state[:2] for record in listing.records}


@pytest.mark.parametrize("list_files", [list_folder, list_table])
@pytest.mark.parametrize("change", CHANGES)
def test_files_that_kept_size_and_time_are_found_out(
    tmp_path: Path, source: Path, change: Callable[[Path], None], list_files: Callable[[Path], SourceListing]
) -> None:
    before = list_files(source)
    build(before, tmp_path / "cache")
    earlier = all_shards(tmp_path / "cache")
    change(source)
    after = list_files(source)
    assert known_state(after).items() <= known_state(before).items()
    build(after, tmp_path / "cache")
    build(after, tmp_path / "fresh")
    assert all_shards(tmp_path / "cache") == all_shards(tmp_path / "fresh") != earlier
    assert work_done(build(after, tmp_path / "cache")) == (0, 0, len(after.records))


def test_pixels_and_labels_of_renumbered_images_are_right(tmp_path: Path, source: Path) -> None:
    """By h5py and OpenCV alone; the recipe of these tests crops and sharpens, so the digests of the files decide."""
    build(list_table(source), tmp_path / "cache")
    delete_one_and_renumber(source)
    build(list_table(source), tmp_path / "cache")
    table = open_cache(cache_dir(tmp_path / "cache")).table
    digests = [bytes_digest((source / record_id).read_bytes()) for record_id in table.id_texts]
    assert [digest.tobytes() for digest in table.source_digests] == digests
    assert [("blast", "normal")[label] for label in table.labels] == [Path(i).parent.name for i in table.id_texts]


# --- what is said, and what it costs


def notes_of(source: Path, cache: Path, recheck_ns: int | None = None) -> tuple[str, ...]:
    return make_plan(source, cache, recheck_ns=recheck_ns).notes


def test_files_that_look_like_others_are_counted_in_one_note(tmp_path: Path, source: Path) -> None:
    cache = tmp_path / "cache"
    build(source, cache)
    assert notes_of(source, cache) == ()
    swap_two(source)
    [note] = notes_of(source, cache)
    assert note.startswith("2 files have the size and modification time that they had, but another change time or ")
    assert notes_of(source, cache, LISTED_NS) == ()
    build(source, cache)
    assert notes_of(source, cache) == ()


def test_the_same_bytes_in_other_files_are_copied(tmp_path: Path, source: Path) -> None:
    """A folder that was copied whole, or a file system that numbers its files anew at each mount."""
    build(source, tmp_path / "cache")
    copy = Path(shutil.copytree(source, tmp_path / "again", symlinks=True))
    earlier = all_shards(tmp_path / "cache")
    assert notes_of(copy, tmp_path / "cache")[0].startswith(f"{NUM} files have the size")
    assert work_done(build(copy, tmp_path / "cache")) == (0, NUM, 0)
    assert all_shards(tmp_path / "cache") == earlier
    assert work_done(build(copy, tmp_path / "cache")) == (0, 0, NUM)


@pytest.mark.parametrize("mtime_s", [15_000_000_000, -86_400, -1])
@pytest.mark.parametrize("list_files", [list_folder, list_table])
def test_times_far_away_are_no_obstacle(
    tmp_path: Path, source: Path, mtime_s: int, list_files: Callable[[Path], SourceListing]
) -> None:
    """Behind 2262 a time has more than 64 bits of nanoseconds: such a file is read at every build."""
    path = bmps(source)[5]
    os.utime(path, (mtime_s, mtime_s))
    if path.stat().st_mtime != mtime_s:
        pytest.skip("this file system does not hold that time")
    for _ in range(2):
        build(list_files(source), tmp_path / "cache")
        build(list_files(source), tmp_path / "fresh")
        assert all_shards(tmp_path / "cache") == all_shards(tmp_path / "fresh")
        write_bmp(path, 77)
        os.utime(path, (mtime_s, mtime_s))
    build(list_files(source), tmp_path / "cache")
    is_trusted = state_of(path.stat()).mtime_ns < LISTED_NS
    assert (work_done(build(list_files(source), tmp_path / "cache"))[2] == NUM) == is_trusted


# --- states that are not settled


def test_an_unsettled_row_matches_no_file(tmp_path: Path, source: Path) -> None:
    """Not even a record that claims to have that very time."""
    listing, cache = list_folder(source), tmp_path / "cache"
    build(listing, cache, listed_at_ns=OLD_NS)
    directory = cache_dir(cache)
    index = read_index(directory, load_manifest(directory).index)
    assert (index.source_states[:, MTIME] == UNSETTLED_NS).all()
    assert load_manifest(directory).source_state is None
    states = dict(zip(index.table.id_texts, index.source_states.tolist(), strict=True))
    records = tuple(replace(record, state=FileState(*states[record.record_id])) for record in listing.records)
    plan = make_plan(replace(listing, records=records), cache)
    assert plan.num_to_make == NUM
    assert plan.notes == ()


@pytest.mark.parametrize(("age_ns", "num_processed"), [(5_000_000, 1), (1_000_000_000, 0)])
def test_change_times_of_the_last_tick_are_not_trusted(
    tmp_path: Path, source: Path, age_ns: int, num_processed: int
) -> None:
    """Within one tick a file may change again without another size or time."""
    listing, cache = list_folder(source), tmp_path / "cache"
    last_change_ns = max(record.state.ctime_ns for record in listing.records)
    path = next(record.path for record in listing.records if record.state.ctime_ns == last_change_ns)
    build(listing, cache, listed_at_ns=last_change_ns + age_ns)
    assert (load_manifest(cache_dir(cache)).source_state is None) == bool(num_processed)
    write_bmp(path, 99)
    assert build(listing, cache).num_processed == num_processed


# --- ldata build --recheck


@pytest.fixture
def fooled(tmp_path: Path, source: Path) -> Path:
    """A cache whose index has the states of two changed images."""
    build(source, tmp_path / "cache")
    write_bmp(bmps(source)[0], 901)
    write_bmp(bmps(source)[-1], 902)
    adopt_states(source, tmp_path / "cache")
    return tmp_path / "cache"


def test_a_recheck_finds_changes_that_no_state_shows(tmp_path: Path, source: Path, fooled: Path) -> None:
    listing = list_folder(source)
    state = source_state(listing.classes, listing.records)
    assert find_current(cache_dir(fooled), state) is not None
    assert work_done(build(source, fooled)) == (0, 0, NUM)
    assert work_done(build(source, fooled, recheck_ns=LISTED_NS)) == (2, NUM - 2, 0)
    build(source, tmp_path / "fresh")
    assert all_shards(fooled) == all_shards(tmp_path / "fresh")
    assert work_done(build(source, fooled)) == (0, 0, NUM)


def test_a_recheck_of_an_intact_cache_ends_with_the_same_bytes(tmp_path: Path, source: Path) -> None:
    cache = tmp_path / "cache"
    build(source, cache)
    before = {path: path.read_bytes() for path in cache.rglob("*.*") if path.is_file()}
    assert work_done(build(source, cache, recheck_ns=LISTED_NS)) == (0, NUM, 0)
    assert {path: path.read_bytes() for path in cache.rglob("*.*") if path.is_file()} == before


def test_a_recheck_trusts_no_receipt_of_earlier_work(tmp_path: Path, source: Path) -> None:
    """Jobs of a planned recheck find their own."""
    for recheck_ns, expected in [(None, True), (None, False), (5, True), (5, False), (6, True), (None, False)]:
        plan = make_plan(source, tmp_path / "cache", recheck_ns=recheck_ns)
        for target in plan.targets:
            target.target.directory.mkdir(parents=True, exist_ok=True)
        task = plan.tasks[0]
        assert (run_task(task).num_processed > 0) == expected


# --- caches of release 0.1


def save_index_of_release_0_1(directory: Path) -> None:
    """Write a cache's index as release 0.1 wrote it: sizes and modification times alone."""
    manifest = load_manifest(directory)
    index = read_index(directory, manifest.index)

    def fill(file: h5py.File) -> None:
        write_columns(file, index.table)
        file.create_dataset("source_sizes_bytes", data=np.ascontiguousarray(index.source_states[:, 0]))
        file.create_dataset("source_mtimes_ns", data=np.ascontiguousarray(index.source_states[:, 1]))

    data = hdf5_bytes(fill)
    digest = bytes_digest(data).hex()
    entry = IndexEntry(f"index-{digest[:16]}.h5", len(data), digest)
    (directory / entry.name).write_bytes(data)
    (directory / manifest.index.name).unlink()
    save_manifest(directory, replace(manifest, index=entry, source_state="0" * 32))


@pytest.fixture
def old_cache(tmp_path: Path, source: Path) -> Path:
    build(source, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("manifest.json"):
        save_index_of_release_0_1(path.parent)
    return tmp_path / "cache"


def test_a_cache_of_release_0_1_opens(old_cache: Path) -> None:
    with open_cache(cache_dir(old_cache)) as cache:
        assert len(cache) == NUM
        assert cache.reader.gather(np.arange(NUM)).shape == (NUM, 16, 16, 3)


def test_the_first_build_after_the_upgrade_reads_every_file_and_says_so(
    tmp_path: Path, source: Path, old_cache: Path
) -> None:
    swap_two(source)
    [note] = notes_of(source, old_cache)
    assert "did not record change times" in note
    # Each of the two has its pixels in the shard of the other.
    assert work_done(build(source, old_cache)) == (2, NUM - 2, 0)
    build(source, tmp_path / "fresh")
    assert all_shards(old_cache) == all_shards(tmp_path / "fresh")
    assert notes_of(source, old_cache) == ()
    assert work_done(build(source, old_cache)) == (0, 0, NUM)


def test_an_index_of_release_0_1_is_repaired(source: Path, old_cache: Path) -> None:
    """By one of this release, whose states the next build settles."""
    directory = cache_dir(old_cache)
    (directory / load_manifest(directory).index.name).write_bytes(b"damaged")
    report = repair_cache(directory, lambda: list_folder(source).records, num_threads=1, progress=lambda _: None)
    assert report.left.damages == ()
    assert work_done(build(source, old_cache)) == (0, NUM, 0)
    assert work_done(build(source, old_cache)) == (0, 0, NUM)
