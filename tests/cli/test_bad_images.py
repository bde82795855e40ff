"""Folders with every kind of bad image, through the commands that read images: one line each, and nothing waits."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.decoding import decode as source_file
from leukemia_data.operations.recipe import load_recipe
from leukemia_data.sources.source import list_images
from leukemia_data.streams.dataset import FileStream

from ..leukemia_data.decoding.bad_images import read_rows, refused_rows

RAW = ("--recipe", "raw", "--size", 48, "--n-jobs", 1)
QUARANTINE = ("--on-error", "quarantine", "--max-bad", "100%")
SUFFIXES = {b"BM": ".bmp", b"\x89P": ".png", b"\xff\xd8": ".jpg", b"II": ".tif"}
NO_FILES = {
    "pipe.bmp": "a pipe",
    "folder.bmp": "a folder",
    "nowhere.bmp": "a link that leads to no file",
    "circle.bmp": "a link that leads to no file",
    "zero.bmp": "a device",
}


@pytest.fixture
def good(tmp_path: Path, make_frame: Callable, write_image: Callable) -> Path:
    """Eight cells of four subjects."""
    rng = np.random.default_rng(7)
    for subject, class_name in (("1", "all"), ("2", "all"), ("H1", "hem"), ("H2", "hem")):
        for number in (1, 2):
            name = f"UID_{subject}_1_{number}_{class_name}.bmp"
            write_image(tmp_path / "cells" / class_name / name, make_frame(rng, 60, 60))
    return tmp_path / "cells"


@pytest.fixture
def spoiled(good: Path) -> dict[str, str]:
    """Bad files among the good ones: id and reason of each, the reason as a regular expression."""
    reasons = {}
    for number, row in enumerate(refused_rows()):
        name = f"{number}{SUFFIXES.get(row.data[:2], '.bmp')}"
        (good / "all" / name).write_bytes(row.data)
        reasons[f"all/{name}"] = row.reason
    if os.name == "posix":
        os.mkfifo(good / "all" / "pipe.bmp")
        (good / "all" / "folder.bmp").mkdir()
        (good / "all" / "nowhere.bmp").symlink_to("absent.bmp")
        (good / "all" / "circle.bmp").symlink_to("circle.bmp")
        (good / "all" / "zero.bmp").symlink_to("/dev/zero")
        reasons.update({f"all/{name}": reason for name, reason in NO_FILES.items()})
    return reasons


def test_build_leaves_out_bad_images_with_the_reason(
    good: Path, spoiled: dict[str, str], scratch: Path, ldata: Callable, json_of: Callable
) -> None:
    told = json_of(ldata("build", good, *RAW, *QUARANTINE, "--json"))
    quarantined = {image["record_id"]: image["reason"] for image in told["quarantined"]}
    assert quarantined.keys() == spoiled.keys()
    for record_id, reason in spoiled.items():
        assert re.search(reason, quarantined[record_id]), record_id
    [directory] = Path("cache/cells").iterdir()
    cache = open_cache(directory)
    assert sorted(cache.table.id_texts) == sorted(f"{path.parent.name}/{path.name}" for path in good.rglob("UID_*"))
    again = json_of(ldata("build", good, *RAW, *QUARANTINE, "--json"))
    assert {image["record_id"] for image in again["quarantined"]} == spoiled.keys()


def test_build_fails_with_all_bad_files_in_one_go(
    good: Path, scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    for name, data in (("empty.bmp", b""), ("text.png", b"x" * 99), ("odd.tif", refused_rows()[6].data)):
        (good / "all" / name).write_bytes(data)
    result = ldata("build", good, *RAW)
    assert "3 of 11 images cannot be used" in error_of(result, 1)
    assert all(f"  all/{name}: " in result.stderr for name in ("empty.bmp", "text.png", "odd.tif"))


def test_odd_files_that_are_right_are_built(good: Path, scratch: Path, ldata: Callable, json_of: Callable) -> None:
    rows = read_rows()
    for number, row in enumerate(rows):
        (good / "all" / f"{number}{SUFFIXES[row.data[:2]]}").write_bytes(row.data)
    told = json_of(ldata("build", good, *RAW, "--json"))
    assert (told["num_processed"], told["quarantined"]) == (8 + len(rows), [])


def test_audit_and_preview_go_on_beside_bad_files(
    good: Path, spoiled: dict[str, str], scratch: Path, ldata: Callable
) -> None:
    result = ldata("audit", good, "--no-near", "--out", "audit")
    assert result.exit_code == 0, result.output
    with Path("audit/findings.csv").open(encoding="utf-8", newline="") as file:
        findings = {row["image"] for row in csv.DictReader(file) if row["kind"].startswith("frame_")}
    assert spoiled.keys() <= findings
    assert ldata("preview", good, "--recipe", "raw", "--size", 48, "--images", 20).exit_code == 0


def test_reader_of_predict_reports_bad_files_and_yields_the_rest(good: Path, spoiled: dict[str, str]) -> None:
    records = list_images([good])
    told = {}
    batches = FileStream(
        records,
        load_recipe("raw"),
        48,
        batch_size=16,
        num_threads=2,
        on_failure=lambda record, error: told.update({record.record_id: str(error)}),
    )
    read = {records[number].record_id for batch in batches for number in batch.indices_B.tolist()}
    assert read == {f"{path.parent.name}/{path.name}" for path in good.rglob("UID_*")}
    assert told.keys() == spoiled.keys()
    assert all(re.search(reason, told[record_id]) for record_id, reason in spoiled.items())


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such names")
def test_odd_names_go_through_caches_tables_and_messages(
    good: Path, scratch: Path, ldata: Callable, json_of: Callable
) -> None:
    cell = next(good.rglob("UID_1_*")).read_bytes()
    names = {b"two\nlines.bmp": "two\\nlines.bmp", b"caf\xe9.bmp": "caf\\xe9.bmp", b"\x1b[31m.bmp": "\\x1b[31m.bmp"}
    try:
        for name in names:
            (good / "all" / os.fsdecode(name)).write_bytes(cell)
    except OSError:
        pytest.skip("this file system refuses such names")
    shown = {f"all/{name}" for name in names.values()}
    assert json_of(ldata("build", good, *RAW, "--json"))["num_processed"] == 11
    [directory] = Path("cache/cells").iterdir()
    assert shown < set(open_cache(directory).table.id_texts)
    assert ldata("verify", directory).exit_code == 0


def test_an_image_that_changes_while_it_is_read_is_left_out_and_taken_in_by_the_next_build(
    good: Path, scratch: Path, ldata: Callable, json_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = next(good.rglob("UID_2_*"))
    whole = victim.read_bytes()
    read = np.fromfile

    def read_slowly(file, dtype):
        data = read(file, dtype)
        if Path(file.name) == victim:
            victim.write_bytes(whole + b"more")
        return data

    with monkeypatch.context() as patch:
        patch.setattr(source_file.np, "fromfile", read_slowly)
        told = json_of(ldata("build", good, *RAW, *QUARANTINE, "--json"))
    [image] = told["quarantined"]
    assert image["record_id"] == f"all/{victim.name}"
    assert "changed while it was read" in image["reason"]
    victim.write_bytes(whole)
    assert json_of(ldata("build", good, *RAW, "--json"))["quarantined"] == []
    ldata("build", good, *RAW, "--name", "fresh")
    [repaired], [fresh] = Path("cache/cells").iterdir(), Path("cache/fresh").iterdir()
    assert {path.name for path in fresh.glob("shard-*")} <= {path.name for path in repaired.glob("shard-*")}
