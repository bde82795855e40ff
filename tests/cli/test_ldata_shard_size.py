"""``ldata build --shard-size``: kept by later builds until another is given, and shown by other commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import find_cache_dirs
from leukemia_data.caches.manifest import Manifest, load_manifest

RAW = ("--recipe", "raw", "--size", 16, "--n-jobs", 1)


@pytest.fixture
def source(scratch: Path, write_image: Callable, age_files: Callable) -> Path:
    rng = np.random.default_rng(5)
    for number in range(24):
        path = scratch / "cells" / ("blast" if number % 2 else "normal") / f"p{number // 4}" / f"{number}.png"
        write_image(path, rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    age_files(scratch / "cells")
    return scratch / "cells"


@pytest.fixture
def build(source: Path, scratch: Path, ldata: Callable, json_of: Callable) -> Callable[..., dict]:
    """``build("--shard-size", 8)``: what the command prints as JSON."""
    return lambda *options, cache="cache": json_of(
        ldata("build", source, *RAW, "--cache", scratch / cache, "--json", *options)
    )


def manifest_of(root: Path) -> Manifest:
    [directory] = find_cache_dirs(root)
    return load_manifest(directory)


def sizes_of(root: Path) -> list[int]:
    return [shard.num_samples for shard in manifest_of(root).shards]


def test_it_is_kept_until_it_is_decided_anew(build: Callable, scratch: Path) -> None:
    assert build("--shard-size", 8)["num_processed"] == 24
    small = manifest_of(scratch / "cache")
    assert small.shard_capacity == 8
    assert max(sizes_of(scratch / "cache")) <= 8
    assert not build()["changed"]
    assert not build("--shard-size", 8)["changed"]
    again = build("--shard-size", "auto")
    assert (again["num_processed"], again["num_copied"]) == (0, 24)
    assert sizes_of(scratch / "cache") == [24]
    assert manifest_of(scratch / "cache").shard_capacity is None
    assert not build("--shard-size", "auto")["changed"]


def test_a_cache_that_was_cut_anew_is_that_of_a_fresh_build(build: Callable, scratch: Path) -> None:
    build()
    told = build("--shard-size", 4)
    assert (told["num_processed"], told["num_copied"] + told["num_kept"]) == (0, 24)
    build("--shard-size", 4, cache="fresh")
    assert manifest_of(scratch / "cache") == manifest_of(scratch / "fresh")


def test_a_new_image_finds_the_shards_as_they_were_decided(
    build: Callable, source: Path, scratch: Path, write_image: Callable, age_files: Callable
) -> None:
    build("--shard-size", 4)
    write_image(source / "blast" / "p9" / "new.png", np.full((20, 20, 3), 7, np.uint8))
    age_files(source)
    told = build()
    assert told["num_processed"] == 1
    assert told["num_kept"] >= 20
    assert manifest_of(scratch / "cache").shard_capacity == 4


def test_a_new_cut_is_announced(source: Path, build: Callable, scratch: Path, ldata: Callable) -> None:
    build()
    result = ldata("build", source, *RAW, "--cache", scratch / "cache", "--shard-size", 4)
    assert "shards of up to 128 images and is cut anew, up to 4: pixels are copied" in result.stderr


def test_info_shows_it(build: Callable, scratch: Path, ldata: Callable, json_of: Callable) -> None:
    build("--shard-size", 4)
    assert json_of(ldata("info", "--cache", scratch / "cache", "--json"))["shard_capacity"] == 4
    assert "shards of up to 4 images (--shard-size)" in ldata("info", "--cache", scratch / "cache").stdout


@pytest.mark.parametrize("text", ["0", "-3", "many", "1.5", "1000000"])
def test_other_words_are_refused(source: Path, ldata: Callable, error_of: Callable, text: str) -> None:
    assert "--shard-size" in error_of(ldata("build", source, f"--shard-size={text}"), 2)
