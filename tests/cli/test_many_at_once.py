"""Several commands, processes and users on one cache."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.files.lock import lock_cache
from leukemia_data.sources.source import SourceListing, list_source

RAW = ("--recipe", "raw", "--size", 32, "--size", 16, "--n-jobs", 1)


@pytest.fixture
def source(scratch: Path, write_image: Callable, age_files: Callable) -> Path:
    """Folder ``cells`` with two classes of six small images, in the current folder."""
    rng = np.random.default_rng(5)
    for number in range(12):
        folder = scratch / "cells" / ("blast" if number % 2 else "normal") / f"p{number // 4}"
        write_image(folder / f"{number}.png", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    age_files(scratch / "cells")
    return scratch / "cells"


@pytest.fixture
def add_image(source: Path, write_image: Callable, age_files: Callable) -> Callable[[str], None]:
    """``add_image(name)``: one more image in the source, written long ago."""

    def add(name: str) -> None:
        write_image(source / "blast" / "p9" / name, np.full((30, 30, 3), 77, np.uint8))
        age_files(source)

    return add


def cached_names() -> set[str]:
    """File names in the cache of 32 px."""
    [directory] = Path("cache/cells").glob("32-*")
    return {record_id.rsplit("/", 1)[1] for record_id in open_cache(directory).table.id_texts}


# --- two builds


def test_a_second_build_leaves_with_a_message(source: Path, add_image: Callable, ldata: Callable, error_of: Callable):
    ldata("build", source, *RAW)
    add_image("new.png")
    [directory] = Path("cache/cells").glob("16-*")
    with lock_cache(directory):
        message = error_of(ldata("build", source, *RAW), 1)
    assert re.fullmatch(
        rf"{re.escape(str(directory))} is in use by another process \(build, process {os.getpid()} on .+, "
        r"since .+\): wait for it to end, as `ldata build --wait` does",
        message,
    )
    assert "new.png" not in cached_names()


def test_a_build_with_nothing_to_do_needs_no_lock(source: Path, ldata: Callable) -> None:
    ldata("build", source, *RAW)
    with ExitStack() as locks:
        for directory in Path("cache/cells").iterdir():
            locks.enter_context(lock_cache(directory))
        assert ldata("build", source, *RAW).stdout.startswith("Nothing to do")


@pytest.mark.parametrize("commits", [True, False])
def test_a_build_that_waited_does_only_what_is_left(
    commits: bool,
    source: Path,
    add_image: Callable,
    ldata: Callable,
    json_of: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other build ends while this one waits, with a commit or without; in the meantime an image is added."""
    ldata("build", source, *RAW)
    add_image("new.png")
    told: list[str] = []
    with ExitStack() as locks:
        locks.enter_context(lock_cache(next(Path("cache/cells").glob("16-*"))))

        def let_the_other_end(busy: str) -> None:
            told.append(busy)
            locks.close()
            if commits:
                add_image("newer.png")
                assert ldata("build", source, *RAW).exit_code == 0

        monkeypatch.setattr("leukemia_data.building.listed_build.note_waiting", lambda _, busy: let_the_other_end(busy))
        summary = json_of(ldata("build", source, *RAW, "--wait", "--json"))
    assert len(told) == 1
    assert summary["num_processed"] == (0 if commits else 1)
    assert summary["changed"] is not commits
    assert cached_names() >= ({"new.png", "newer.png"} if commits else {"new.png"})


def test_a_build_that_was_overtaken_while_it_listed_lists_again(
    source: Path, add_image: Callable, ldata: Callable, json_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would throw out of the cache what the faster one, which listed later, has put there."""
    calls: list[object] = []

    def list_slowly(*arguments: object, **options: object) -> SourceListing:
        listing = list_source(*arguments, **options)
        calls.append(arguments)
        if len(calls) == 1:
            add_image("new.png")
            assert ldata("build", source, *RAW).exit_code == 0
        return listing

    monkeypatch.setattr("leukemia_data.building.build_request.list_source", list_slowly)
    summary = json_of(ldata("build", source, *RAW, "--json"))
    assert (summary["changed"], summary["num_images"], len(calls)) == (False, 13, 3)
    assert "new.png" in cached_names()


def test_two_processes_that_wait_for_each_other_share_the_work(source: Path, scratch: Path, start_process: Callable):
    sizes = (("--size", 32, "--size", 16), ("--size", 16, "--size", 32))
    processes = [
        start_process(
            "ldata", "build", source, "--recipe", "raw", *order, "--n-jobs", 1, "--wait", "--json", cwd=scratch
        )
        for order in sizes
    ]
    summaries = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        summaries.append(json.loads(stdout))
    assert sorted(summary["changed"] for summary in summaries) == [False, True]
    assert sum(summary["num_processed"] for summary in summaries) == 12


def test_the_sample_that_another_process_generates_is_waited_for(
    source: Path, scratch: Path, ldata: Callable, json_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as locks:
        locks.enter_context(lock_cache(Path("cache"), "generating the sample"))

        def let_the_other_end(busy: str) -> None:
            assert "generating the sample, process" in busy
            source.rename(scratch / "cache" / "sample-images")
            locks.close()

        monkeypatch.setattr("leukemia_data.files.lock.note_waiting", lambda _, busy: let_the_other_end(busy))
        assert json_of(ldata("build", *RAW, "--json"))["num_images"] == 12


# --- two users


@pytest.fixture
def shared(shared_folder: Path, caches: Path) -> Path:
    """A copy of ``caches`` that every user of the machine can read."""
    copy = Path(shutil.copytree(caches, shared_folder / "caches"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def test_a_cache_without_write_permission_can_be_inspected(
    shared: Path, without_rights: Callable, ldata: Callable, tmp_path: Path, files_below: Callable
) -> None:
    before = files_below(shared)
    [directory] = shared.glob("*/64-*")
    with without_rights(shared):
        for command in (
            ("list", "--cache", shared),
            ("info", directory),
            ("stats", directory),
            ("verify", directory),
            ("gc", "--cache", shared, "--dry-run"),
        ):
            result = ldata(*command)
            assert result.exit_code == 0, (command, result.output)
    assert files_below(shared) == before


def test_a_cache_without_write_permission_can_be_trained_on(
    shared: Path,
    without_rights: Callable,
    ltrain: Callable,
    train_options: list[object],
    finished_run: Path,
    files_below: Callable,
) -> None:
    # Its modules are loaded by then: another user may not be able to read this one's Python.
    assert finished_run.is_dir()
    before = files_below(shared)
    out = shared.parent / "runs"
    out.mkdir()
    out.chmod(0o777)
    with without_rights(shared):
        result = ltrain("--cache", shared, *train_options[2:], "--epochs", 1, "--out", out / "run")
        assert result.exit_code == 0, result.output
    assert files_below(shared) == before


def test_a_build_without_write_permission_is_refused_with_the_cure(
    shared: Path, source: Path, without_rights: Callable, ldata: Callable, error_of: Callable, files_below: Callable
) -> None:
    shutil.copytree(source, shared.parent / "source")
    ldata("build", source, *RAW)
    before = files_below(shared)
    with without_rights(shared):
        message = error_of(ldata("build", shared.parent / "source", *RAW, "--cache", shared), 1)
    assert str(shared) in message
    assert "Permission denied" in message
    assert "--cache" in message
    assert files_below(shared) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_the_files_of_a_run(finished_run: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    for path in finished_run.rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == expected, path
