"""Shards of a task compared with plain OpenCV and NumPy on the same files."""

from __future__ import annotations

import json
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import xxhash

from leukemia_data.building import shard_maker
from leukemia_data.building.shard_maker import run_task
from leukemia_data.building.shard_task import RECEIPTS_DIR, PriorSample, ShardTask, Target, find_receipts, receipt_path
from leukemia_data.errors import BuildError
from leukemia_data.files.atomic import FileState, state_of
from leukemia_data.records.fingerprint import cache_fingerprint
from leukemia_data.records.record import Record

from ..helpers import TINY_RECIPE, file_states, flip_bit, image_paths, make_source, write_cell

SIZES = (16, 24)


def plain_tiny(path: Path, size: int) -> np.ndarray:
    """The tiny recipe by plain OpenCV calls: RGB (size, size, 3)."""
    frame = cv2.imread(str(path))[..., ::-1].astype(np.uint8)
    canvas = np.zeros((40, 40, 3), np.uint8)
    canvas[2:38, :] = frame[:, 2:42]
    sharp = cv2.addWeighted(canvas, 2.5, cv2.GaussianBlur(canvas, (0, 0), 1.0), -1.5, 0)
    return cv2.resize(sharp[4:36, 4:36], (size, size), interpolation=cv2.INTER_AREA)


def record_of(path: Path, root: Path, **changes: object) -> Record:
    record_id = path.relative_to(root).as_posix()
    return replace(Record(record_id, path, state=state_of(path.stat())), **changes)


@pytest.fixture
def source(tmp_path) -> Path:
    return make_source(tmp_path / "source", 6)


@pytest.fixture
def targets(tmp_path) -> tuple[Target, ...]:
    made = tuple(
        Target(size, cache_fingerprint(TINY_RECIPE, size, cv2.__version__), tmp_path / f"cache-{size}")
        for size in SIZES
    )
    for target in made:
        target.directory.mkdir()
    return made


@pytest.fixture
def task(source, targets) -> ShardTask:
    records = tuple(record_of(path, source, label=n % 2, subject=f"S{n}") for n, path in enumerate(image_paths(source)))
    return ShardTask(records, targets, TINY_RECIPE)


def test_shards_hold_the_pixels_of_plain_opencv_calls(task):
    result = run_task(task)
    assert (result.num_processed, result.num_copied, result.num_records, result.failures) == (6, 0, 6, ())
    for target in task.targets:
        with h5py.File(target.directory / result.entries[target.size_px].name, "r") as file:
            images = file["images"][()]
        for image, record in zip(images, task.records, strict=True):
            difference = np.abs(image.astype(int) - plain_tiny(record.path, target.size_px).astype(int))
            assert difference.max() <= 1
            assert difference.mean() < 0.05


def test_rows_describe_the_pixels_and_the_source_bytes(task):
    result = run_task(task)
    for target in task.targets:
        with h5py.File(target.directory / result.entries[target.size_px].name, "r") as file:
            images, table = file["images"][()], result.tables[target.size_px]
            assert np.array_equal(file["crcs"][()], table.crcs)
        pixels = images.astype(np.uint64).reshape(6, -1, 3)
        assert np.array_equal(table.channel_sums, pixels.sum(axis=1))
        assert np.array_equal(table.channel_square_sums, (pixels**2).sum(axis=1))
        assert table.crcs.tolist() == [zlib.crc32(image.tobytes()) for image in images]
        digests = [xxhash.xxh3_128_digest(record.path.read_bytes()) for record in task.records]
        assert [row.tobytes() for row in table.source_digests] == digests
        assert table.subject_texts == [f"S{n}" for n in range(6)]
        assert table.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_pixel_digest_is_that_of_the_decoded_frame(source, targets):
    first = image_paths(source)[0]
    twin, turned = source / "twin.bmp", source / "turned.png"
    frame = cv2.imread(str(first))
    cv2.imwrite(str(twin), frame)
    cv2.imwrite(str(turned), frame.reshape(frame.shape[1], frame.shape[0], 3))
    records = tuple(record_of(path, source) for path in (first, twin, turned))
    table = run_task(ShardTask(records, targets, TINY_RECIPE)).tables[16]
    png, bmp, other_shape = (row.tobytes() for row in table.pixel_digests)
    assert png == bmp != other_shape
    assert len({row.tobytes() for row in table.source_digests}) == 3


def test_worker_with_another_opencv_refuses(task):
    """Another recipe belongs to another cache; nothing is written."""
    elsewhere = replace(task.targets[1], fingerprint=cache_fingerprint(TINY_RECIPE, 24, "4.11.0"))
    with pytest.raises(BuildError, match=rf"OpenCV {cv2.__version__} on .* is not the release"):
        run_task(replace(task, targets=(task.targets[0], elsewhere)))
    assert not any(path.is_file() for target in task.targets for path in target.directory.rglob("*"))


def test_second_run_finds_the_receipt_and_touches_nothing(task, tmp_path):
    first = run_task(task)
    before = file_states(tmp_path)
    second = run_task(pickle.loads(pickle.dumps(task)))
    assert file_states(tmp_path) == before
    assert second.num_processed == 0
    assert second.entries == first.entries
    assert all(second.tables[size].equals(first.tables[size]) for size in SIZES)
    assert second.source_states.tolist() == first.source_states.tolist()


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "no receipt", "broken receipt"])
def test_receipt_without_its_intact_shard_is_ignored(task, damage):
    first = run_task(task)
    target = task.targets[0]
    shard = target.directory / first.entries[16].name
    data = shard.read_bytes()
    receipt = next((target.directory / RECEIPTS_DIR).iterdir())
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(data[:-100])
    elif damage == "flipped":
        flip_bit(shard, len(data) // 2)
    elif damage == "no receipt":
        receipt.unlink()
    else:
        receipt.write_text("[1, 2", encoding="utf-8")
    again = run_task(task)
    assert again.num_processed == 6
    assert again.entries == first.entries
    assert shard.read_bytes() == data


@pytest.mark.parametrize(
    "changes",
    [
        {"states": [[1.5, 1, 1, 1]] * 6},
        {"states": [[1, 1, 1, 1]] * 5},
        {"states": [[1, 2**70, 1, 1]] * 6},
        {"states": [[1, 1]] * 6},
        {"states": [1, 1, 1, 1, 1, 1]},
        {"states": 6},
        {"shard": {"name": "../shard.h5"}},
        {"shard": {"num_samples": 7}},
        {"shard": {"num_bytes": 1}},
        {"shard": {"images_offset_bytes": 0}},
        {"shard": {"metadata_digest": None}},
        {"shard": {"other": 1}},
    ],
)
def test_receipt_that_differs_from_its_shard_is_ignored(task, changes):
    first = run_task(task)
    path = next((task.targets[0].directory / RECEIPTS_DIR).iterdir())
    receipt = json.loads(path.read_text(encoding="utf-8"))
    shard = receipt["shard"] | changes.pop("shard", {})
    path.write_text(json.dumps({**receipt, "shard": shard, **changes}), encoding="utf-8")
    again = run_task(task)
    assert again.num_processed == 6
    assert again.entries == first.entries


def test_receipts_of_runs_that_read_other_files_do_not_go_together(task, tmp_path):
    """Two runs of one task at once, as of a requeued job: an image changed between them, each left one receipt."""
    run_task(task)
    other, path = tmp_path / "other.json", receipt_path(task, task.targets[1])
    other.write_bytes(path.read_bytes())
    path.unlink()
    write_cell(task.records[2].path, 999, mtime_ns=1_600_000_123_000_000_000)
    changed = run_task(task)
    other.replace(path)
    assert find_receipts(task) is None
    again = run_task(task)
    assert again.entries == changed.entries
    assert again.source_states.tolist() == changed.source_states.tolist()


def test_receipt_of_other_images_is_ignored(task):
    run_task(task)
    others = replace(task, records=(replace(task.records[0], record_id="other"), *task.records[1:]))
    for target in task.targets:
        folder = target.directory / RECEIPTS_DIR
        (folder / f"{task.key}.json").replace(folder / f"{others.key}.json")
    assert run_task(others).num_processed == 6


@pytest.mark.parametrize("error", [MemoryError(), "OpenCV"])
def test_lack_of_memory_is_an_error_and_no_bad_image(task, monkeypatch, error):
    if error == "OpenCV":
        error = cv2.error("Failed to allocate")
        error.code = cv2.Error.StsNoMem

    def fail(data: object) -> None:
        raise error

    monkeypatch.setattr(shard_maker, "decode_rgb", fail)
    with pytest.raises(BuildError, match="not enough memory for a shard of 6 images at 16 and 24 px"):
        run_task(task)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": 1},
        {"subject": "X"},
        {"split": "test"},
        {"fold": 2},
        *({"state": FileState(**{name: 1})} for name in FileState._fields),
    ],
)
def test_key_differs_between_states_and_between_metadata(task, changes):
    records = (replace(task.records[0], **changes), *task.records[1:])
    assert replace(task, records=records).key != task.key
    assert replace(task, records=tuple(replace(r, path=Path("elsewhere")) for r in task.records)).key == task.key


def test_unusable_images_are_failures_with_reasons(task, source):
    empty, text, missing = source / "empty.png", source / "text.bmp", source / "gone.png"
    empty.write_bytes(b"")
    text.write_text("no image", encoding="utf-8")
    bad = (record_of(empty, source), record_of(text, source), Record("gone.png", missing))
    result = run_task(replace(task, records=(bad[0], *task.records, *bad[1:])))
    assert [failure.record_id for failure in result.failures] == ["empty.png", "text.bmp", "gone.png"]
    reasons = [failure.reason for failure in result.failures]
    assert "empty" in reasons[0]
    assert "not a BMP" in reasons[1]
    assert "missing" in reasons[2]
    assert result.tables[16].id_texts == [record.record_id for record in task.records]
    assert result.entries == run_task(task).entries


def test_receipt_of_a_run_with_failures_is_for_the_commit_of_a_plan_alone(task, source):
    """A build tries such images again."""
    bad = source / "text.bmp"
    bad.write_text("no image", encoding="utf-8")
    partly_bad = replace(task, records=(*task.records, record_of(bad, source)))
    made = run_task(partly_bad)
    assert find_receipts(partly_bad) is None
    found = find_receipts(partly_bad, take_failures=True)
    assert (found.entries, found.failures) == (made.entries, made.failures)
    assert found.source_states.tolist() == made.source_states.tolist()
    assert all(found.tables[size].equals(made.tables[size]) for size in SIZES)
    assert run_task(partly_bad).num_processed == len(task.records)


@pytest.mark.parametrize(
    "failures",
    [None, 7, [["text.bmp"]], [["text.bmp", 7]], [["other.bmp", "why"]], [["text.bmp", "why"]] * 2, [[["x"], "why"]]],
)
def test_receipt_with_odd_failures_is_ignored(task, source, failures):
    bad = source / "text.bmp"
    bad.write_text("no image", encoding="utf-8")
    partly_bad = replace(task, records=(*task.records, record_of(bad, source)))
    run_task(partly_bad)
    path = receipt_path(partly_bad, partly_bad.targets[0])
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"failures": failures}), encoding="utf-8")
    assert find_receipts(partly_bad, take_failures=True) is None


def test_task_without_a_usable_image_makes_no_shard(task, source):
    (source / "empty.png").write_bytes(b"")
    result = run_task(replace(task, records=(record_of(source / "empty.png", source),)))
    assert (result.entries, len(result.tables[16]), len(result.failures)) == ({}, 0, 1)
    assert [path.name for path in task.targets[0].directory.iterdir()] == [RECEIPTS_DIR]


def test_state_is_that_of_the_file_that_was_read(task):
    changed = task.records[2].path
    write_cell(changed, 999, mtime_ns=1_600_000_123_000_000_000)
    result = run_task(task)
    assert changed.stat().st_mtime_ns == 1_600_000_123_000_000_000 != task.records[2].state.mtime_ns
    assert result.source_states[2].tolist() == list(state_of(changed.stat()))
    assert result.tables[16].source_digests[2].tobytes() == xxhash.xxh3_128_digest(changed.read_bytes())


def prior_of(result_task: ShardTask, row: int) -> PriorSample:
    result = run_task(result_task)
    digest = result.tables[16].source_digests[row].tobytes()
    return PriorSample(digest, {size: (entry.name, row) for size, entry in result.entries.items()})


def test_unchanged_images_are_copied_without_reading_their_files(task):
    prior = prior_of(task, 3)
    record = task.records[3]
    record.path.unlink()
    result = run_task(ShardTask((record,), task.targets, TINY_RECIPE, unchanged={record.record_id: prior}))
    assert (result.num_copied, result.num_processed, result.failures) == (1, 0, ())
    first = run_task(task)
    for size, target in zip(SIZES, task.targets, strict=True):
        assert result.tables[size].crcs[0] == first.tables[size].crcs[3]
        with h5py.File(target.directory / result.entries[size].name, "r") as copied:
            image = copied["images"][0]
        with h5py.File(target.directory / first.entries[size].name, "r") as original:
            assert np.array_equal(image, original["images"][3])


@pytest.mark.parametrize("where", ["pixels", "rows", "header"])
def test_damaged_shards_are_never_copied_from(task, where):
    first = run_task(task)
    prior = prior_of(task, 3)
    record = task.records[3]
    alone = ShardTask((record,), task.targets, TINY_RECIPE)
    expected = run_task(alone)
    for target in task.targets:
        for receipt in (target.directory / RECEIPTS_DIR).iterdir():
            receipt.unlink()
    entry = first.entries[24]
    path = task.targets[1].directory / entry.name
    with h5py.File(path, "r") as file:
        rows_at = file["channel_sums"].id.get_offset() + 3 * 24
    flip_bit(path, {"pixels": entry.images_offset_bytes + 3 * 24 * 24 * 3 + 5, "rows": rows_at, "header": 3}[where], 4)
    result = run_task(replace(alone, unchanged={record.record_id: prior}))
    assert (result.num_copied, result.num_processed) == (0, 1)
    assert result.entries == expected.entries
