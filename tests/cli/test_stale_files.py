"""``ldata build`` on files that kept size and modification time and are others, with odd clocks, and with --recheck."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from leukemia_data.caches.hdf5_file import read_index, write_index
from leukemia_data.caches.manifest import load_manifest, save_manifest, source_state
from leukemia_data.records.sample_table import states_array
from leukemia_data.sources.source import list_source

RAW = ("--size", 64, "--recipe", "frames.toml")
RECIPE = """
[[step]]
op = "canvas"
side_px = 64

[[step]]
op = "resize"
"""


def is_blast(number: int) -> bool:
    return number % 3 == 0


def write_bmp(path: Path, number: int) -> None:
    """A blast is red, a normal cell green; the brightness encodes the number."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[8:56, 8:56, 2 if is_blast(number) else 1] = 100 + 5 * number
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".bmp", frame)[1].tobytes())


def write_table(path: Path, numbers: Sequence[int]) -> Path:
    rows = [f"cells/{row}.bmp,{int(is_blast(number))}" for row, number in enumerate(numbers)]
    path.write_text("\n".join(["Path,label", *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def lab(scratch: Path, age_files: Callable) -> Path:
    """A table of 18 BMPs of one size, out of an archive."""
    (scratch / "frames.toml").write_text(RECIPE, encoding="utf-8")
    for number in range(18):
        write_bmp(scratch / "cells" / f"{number}.bmp", number)
    age_files(scratch / "cells")
    return write_table(scratch / "train.csv", range(18))


def wrong_images(cache: Path, scratch: Path, *, with_labels: bool = True) -> list[str]:
    """Ids whose pixels are not those of the file, or whose label is not what the pixels show; by h5py and OpenCV."""
    [directory] = cache.glob("*/64-*")
    wrong = []
    for shard in load_manifest(directory).shards:
        with h5py.File(directory / shard.name, "r") as file:
            for record_id, image, label in zip(file["ids"][()], file["images"][()], file["labels"][()], strict=True):
                frame = cv2.imread(str(scratch / record_id.decode()))[..., ::-1]
                is_right = np.array_equal(frame, image) and (not with_labels or image[..., 0].any() == bool(label))
                if not is_right:
                    wrong.append(record_id.decode())
    return wrong


def renumber(scratch: Path) -> list[int]:
    """Delete image 3 and close the gap; what each number then is."""
    (scratch / "cells" / "3.bmp").unlink()
    for number in range(4, 18):
        (scratch / "cells" / f"{number}.bmp").rename(scratch / "cells" / f"{number - 1}.bmp")
    return [number for number in range(18) if number != 3]


def test_renumbered_images_have_their_own_pixels_and_labels(
    scratch: Path, lab: Path, ldata: Callable, files_below: Callable, age_files: Callable
) -> None:
    assert ldata("build", lab, *RAW, "--name", "x").exit_code == 0
    write_table(lab, renumber(scratch))
    age_files(scratch)
    result = ldata("build", lab, *RAW, "--name", "x")
    assert result.exit_code == 0
    assert "note: 14 files have the size and modification time that they had, but another" in result.stderr
    assert wrong_images(scratch / "cache", scratch) == []
    ldata("build", lab, *RAW, "--name", "x", "--cache", "fresh")
    fresh = {name: data for name, data in files_below(scratch / "fresh").items() if "shard-" in name}
    found = files_below(scratch / "cache")
    assert fresh
    assert {name: found[name] for name in fresh} == fresh
    again = ldata("build", lab, *RAW, "--name", "x")
    assert again.stdout.startswith("Nothing to do: 17 images unchanged")
    assert "note: " not in again.stderr


def test_a_planned_build_finds_them_too(scratch: Path, lab: Path, ldata: Callable) -> None:
    ldata("build", lab, *RAW)
    write_table(lab, renumber(scratch))
    planned = ldata("plan", lab, *RAW, "--out", "x.plan")
    assert "but another change time or number" in planned.stderr
    assert ldata("build", "--plan", "x.plan", "--task", "1/1").exit_code == 0
    assert ldata("commit", "x.plan").exit_code == 0
    assert wrong_images(scratch / "cache", scratch) == []


# --- clocks


@pytest.mark.parametrize("mtime_s", [15_000_000_000, -86_400 * 365])
def test_times_behind_2262_and_before_1970_are_no_obstacle(
    scratch: Path, lab: Path, ldata: Callable, mtime_s: int
) -> None:
    path = scratch / "cells" / "5.bmp"
    os.utime(path, (mtime_s, mtime_s))
    if path.stat().st_mtime != mtime_s:
        pytest.skip("this file system does not hold that time")
    for source in (lab, scratch):
        folder, plan = f"{source.name}-jobs", f"{source.name}.plan"
        # A table is beside the folder.
        given = (source, *RAW) if source == lab else (source, *RAW, "--classes", "cells")
        for _ in range(2):
            assert ldata("build", *given, "--cache", source.name + "-cache").exit_code == 0
        assert ldata("plan", *given, "--cache", folder, "--out", plan).exit_code == 0
        assert ldata("build", "--plan", plan, "--task", "1/1").exit_code == 0
        assert ldata("commit", plan).exit_code == 0
        for cache in (f"{source.name}-cache", folder):
            assert wrong_images(scratch / cache, scratch, with_labels=source == lab) == []


# --- --recheck


@pytest.fixture
def fooled(scratch: Path, lab: Path, ldata: Callable) -> Path:
    """The cache of images of which one has changed since, with an index that knows its present state."""
    ldata("build", lab, *RAW)
    path = scratch / "cells" / "4.bmp"
    status = path.stat()
    frame = cv2.imread(str(path))
    frame[32, 32, 1] += 1
    path.write_bytes(cv2.imencode(".bmp", frame)[1].tobytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    listing = list_source([lab])
    states = {record.record_id: record.state for record in listing.records}
    [directory] = scratch.glob("cache/*/64-*")
    manifest = load_manifest(directory)
    index = read_index(directory, manifest.index)
    rows = states_array((states[record_id] for record_id in index.table.id_texts), len(states))
    entry = write_index(directory, replace(index, source_states=rows))
    state = source_state(listing.classes, listing.records)
    save_manifest(directory, replace(manifest, index=entry, source_state=state))
    return scratch / "cache"


def test_a_recheck_reads_everything(scratch: Path, lab: Path, fooled: Path, ldata: Callable, json_of: Callable) -> None:
    assert ldata("build", lab, *RAW).stdout.startswith("Nothing to do")
    assert wrong_images(fooled, scratch) == ["cells/4.bmp"]
    summary = json_of(ldata("build", lab, *RAW, "--recheck", "--json"))
    assert (summary["changed"], summary["num_processed"], summary["num_copied"]) == (True, 1, 17)
    assert wrong_images(fooled, scratch) == []
    assert ldata("build", lab, *RAW).stdout.startswith("Nothing to do")


def test_a_planned_recheck_makes_everything(scratch: Path, lab: Path, fooled: Path, ldata: Callable) -> None:
    assert "0 shards to make" in ldata("plan", lab, *RAW, "--out", "x.plan").stdout
    assert "1 shards to make of 18 images" in ldata("plan", lab, *RAW, "--recheck", "--out", "x.plan").stdout
    assert ldata("commit", "x.plan").exit_code == 1
    assert ldata("build", "--plan", "x.plan", "--task", "1/1").exit_code == 0
    assert ldata("commit", "x.plan").exit_code == 0
    assert wrong_images(fooled, scratch) == []


def test_a_recheck_is_no_matter_for_a_share_of_a_plan(lab: Path, ldata: Callable, error_of: Callable) -> None:
    ldata("plan", lab, *RAW, "--out", "x.plan")
    assert "--recheck" in error_of(ldata("build", "--plan", "x.plan", "--task", "1/1", "--recheck"), 2)
