"""``ldata convert`` and ``ldata build --codec``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.caches.manifest import load_manifest

from ..leukemia_data.helpers import forget_zstandard


@pytest.fixture
def directory(own_caches: Path, dir_of_size: Callable) -> Path:
    """A raw cache of 64 px that the test may change."""
    return dir_of_size(own_caches, 64)


def test_there_and_back(directory: Path, ldata: Callable, json_of: Callable) -> None:
    raw = load_manifest(directory)
    result = ldata("convert", directory)
    assert result.exit_code == 0
    first, sizes, advice = result.stdout.splitlines()
    assert first.startswith(f"{directory}: 32 images from raw to zstd in ")
    assert sizes.endswith(" times smaller than raw")
    assert advice == "`ldata gc` removes the shards as they were"
    assert f"Nothing to do: {directory} is zstd already" in ldata("convert", directory).stdout
    assert json_of(ldata("verify", directory, "--json"))["damages"] == []
    assert len(json_of(ldata("gc", "--cache", directory, "--json"))["files"]) == len(raw.shards)
    told = json_of(ldata("convert", directory, "--codec", "raw", "--json"))
    assert (told["changed"], told["codec"], told["num_samples"], told["compression_ratio"]) == (True, "raw", 32, 1.0)
    assert told["num_bytes"] == raw.num_bytes > told["num_bytes_before"]
    assert load_manifest(directory) == raw


def test_into_another_folder(directory: Path, tmp_path: Path, ldata: Callable, error_of: Callable) -> None:
    before = load_manifest(directory)
    assert ldata("convert", directory, "--out", tmp_path / "new").exit_code == 0
    assert load_manifest(tmp_path / "new").codec == "zstd"
    assert load_manifest(directory) == before
    message = error_of(ldata("convert", directory, "--out", tmp_path / "new"), 1)
    assert message == f"{tmp_path / 'new'} holds a cache already: name a folder that is new or empty"


def test_every_command_reads_a_compressed_cache_as_the_raw_one(
    caches: Path, directory: Path, dir_of_size: Callable, ldata: Callable, json_of: Callable
) -> None:
    assert ldata("convert", directory).exit_code == 0
    raw = dir_of_size(caches, 64)
    for command in ("stats", "info"):
        told, expected = (json_of(ldata(command, path, "--json")) for path in (directory, raw))
        for name in ("directory", "cache", "num_bytes", "codec", "compression_ratio", "library_versions"):
            told.pop(name, None), expected.pop(name, None)
        assert told == expected
    info = ldata("info", directory).stdout
    assert "codec        zstd, images " in info
    assert "zstandard " in info
    assert "zstd " in ldata("list", "--cache", directory).stdout
    assert "codec        raw\n" in ldata("info", raw).stdout


def test_build_takes_and_keeps_a_codec(own_caches: Path, cells: Path, ldata: Callable, json_of: Callable) -> None:
    build = ("build", cells, "--size", 64, "--size", 48, "--recipe", "raw", "--cache", own_caches, "--json")
    assert json_of(ldata(*build))["changed"] is False
    told = json_of(ldata(*build, "--codec", "zstd", "--n-jobs", 1))
    assert (told["num_processed"], told["num_copied"], told["num_kept"]) == (0, 32, 0)
    assert all(cache["codec"] == "zstd" and cache["compression_ratio"] > 1 for cache in told["caches"])
    for again in (build, (*build, "--codec", "zstd")):
        told = json_of(ldata(*again))
        assert (told["changed"], [cache["codec"] for cache in told["caches"]]) == (False, ["zstd", "zstd"])
    assert "zstd " in ldata(*build[:-1]).stdout


def test_missing_extra_is_one_line(
    directory: Path, cells: Path, ldata: Callable, error_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ldata("convert", directory).exit_code == 0
    forget_zstandard(monkeypatch)
    build = ("build", cells, "--recipe", "raw", "--cache", directory.parents[1], "--codec")
    for command in (("verify", directory), ("convert", directory, "--codec", "raw"), (*build, "zstd", "--size", 32)):
        assert 'pip install -e ".[zstd]"' in error_of(ldata(*command), 1)
    assert ldata("info", directory).exit_code == 0


def test_unknown_codec_is_a_usage_error(directory: Path, ldata: Callable, error_of: Callable) -> None:
    assert "'lz4' is not one of 'raw', 'zstd'" in error_of(ldata("convert", directory, "--codec", "lz4"), 2)
