"""Copies to and from a bucket, and training from one, as commands: against a real S3 server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.caches.manifest import load_manifest

from ..object_server import DENIED, Fault, FaultyProxy, ObjectServer


@pytest.fixture
def directory(caches: Path, dir_of_size: Callable) -> Path:
    return dir_of_size(caches, 64)


def address(root: str, directory: Path) -> str:
    return f"{root}/{directory.parent.name}/{directory.name}"


def test_push_and_pull_give_the_same_files_and_tell_what_was_sent(
    caches: Path, directory: Path, s3: ObjectServer, tmp_path: Path, ldata: Callable, json_of: Callable
) -> None:
    root = f"{s3.make_bucket()}/caches"
    names = load_manifest(directory).file_names()
    pushed = json_of(ldata("push", caches, root, "--size", 64, "--json"))
    assert (pushed["from"], pushed["to"]) == (str(directory), address(root, directory))
    assert pushed["num_sent"] == pushed["num_files"] == len(names) - 1
    # The cache's own address means the same place.
    again = ldata("push", directory, address(root, directory), "--verify")
    assert again.stdout == f"{address(root, directory)}: 0 of 2 files copied (0 B); 2 were there already\n"
    pulled = json_of(ldata("pull", root, tmp_path / "here", "--json"))
    target = tmp_path / "here" / directory.parent.name / directory.name
    assert pulled["to"] == str(target)
    assert {name: (target / name).read_bytes() for name in names} == {
        name: (directory / name).read_bytes() for name in names
    }


def test_training_from_a_bucket_is_the_training_from_disk(
    directory: Path, s3: ObjectServer, tmp_path: Path, finished_run: Path, ldata: Callable, ltrain: Callable
) -> None:
    root = f"{s3.make_bucket()}/caches"
    assert ldata("push", directory, root).exit_code == 0
    out, stage = tmp_path / "run", tmp_path / "own-stage"
    network = ("--model", "resnet18-narrow", "--batch-size", 8, "--device", "cpu", "--precision", "fp32", "--lr", 0.01)
    options = ["--cache", root, "--size", 64, *network, "--stage-dir", stage]
    # The local copy of an earlier run is damaged: it is reported, and downloaded again before the training.
    [shard] = load_manifest(directory).shards
    content = bytearray((directory / shard.name).read_bytes())
    start, end = shard.images_offset_bytes, shard.images_offset_bytes + 100_000
    content[start:end] = content[start:end][::-1]
    stage.mkdir()
    (stage / shard.name).write_bytes(content)
    first = ltrain(*options, "--epochs", 2, "--out", out)
    assert first.exit_code == 0, first.output
    assert f"damaged local copies, to be downloaded again: 1, first {shard.name}" in first.stderr
    assert re.search(r"copied 0 MB in \d+\.\d s, \d+ images read by ranges\n$", first.stderr)
    assert json.loads((out / "run.json").read_text())["cache_dir"] == address(root, directory)
    for part in ("valid", "test"):
        assert (out / part / "predictions.csv").read_bytes() == (finished_run / part / "predictions.csv").read_bytes()
    assert {path.name for path in stage.glob("*.h5")} == load_manifest(directory).file_names() - {"manifest.json"}

    resumed = ltrain("--out", out, "--resume", "--epochs", 3, "--stage-dir", stage)
    assert resumed.exit_code == 0, resumed.output
    for command in (("evaluate", out, "--part", "valid"), ("predict", out, "--cache", root)):
        result = ltrain(*command, "--device", "cpu", "--stage-dir", stage)
        assert result.exit_code == 0, result.output


def test_damaged_object_ends_the_training_in_one_line(
    directory: Path, s3: ObjectServer, tmp_path: Path, ldata: Callable, ltrain: Callable, error_of: Callable
) -> None:
    root = s3.make_bucket()
    assert ldata("push", directory, root).exit_code == 0
    shard = load_manifest(directory).shards[0]
    content = bytearray((directory / shard.name).read_bytes())
    content[shard.images_offset_bytes] ^= 1
    s3.write(f"{address(root, directory)}/{shard.name}", bytes(content))
    options = ("--model", "resnet18-narrow", "--batch-size", 8, "--device", "cpu", "--epochs", 1)
    message = error_of(ltrain("--cache", root, *options, "--out", tmp_path / "run"), 1)
    assert f"{address(root, directory)}/{shard.name} is damaged: its digest is" in message
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_mistakes_are_one_line_without_credentials(
    directory: Path,
    s3: ObjectServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ldata: Callable,
    ltrain: Callable,
    error_of: Callable,
) -> None:
    root = s3.make_bucket()
    assert f"{root}/nothing" in error_of(ldata("pull", f"{root}/nothing", tmp_path), 1)
    assert "s3://no-such-bucket" in error_of(ldata("push", directory, "s3://no-such-bucket/caches"), 1)
    assert "no-such-bucket" in error_of(ltrain("--cache", "s3://no-such-bucket/caches"), 1)
    assert "secret" not in error_of(ldata("pull", "s3://user:secret@bucket/caches", tmp_path), 2)
    # As a path it would be a folder named "s3:".
    assert f"{root}: conversion is for folders" in error_of(ldata("convert", root), 2)
    for command in (("convert", directory, "--out", root), ("pull", root, root)):
        assert f"{root} is an address" in error_of(ldata(*command), 2)
    assert f"{root} is an address" in error_of(ltrain("--cache", directory, "--out", root), 2)
    assert "ftp:// is no kind of store" in error_of(ldata("push", directory, "ftp://host/caches"), 2)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "no credentials" in error_of(ldata("push", directory, root), 1)


def test_denied_upload_is_one_line_and_leaves_no_cache(
    directory: Path, faulty_s3: FaultyProxy, ldata: Callable, error_of: Callable
) -> None:
    root = faulty_s3.server.make_bucket()
    faulty_s3.faults.append(Fault(DENIED, "PUT .*index-"))
    assert re.search("index-.*denies it", error_of(ldata("push", directory, root), 1))
    assert not [name for name in faulty_s3.server.names(root) if name.endswith("manifest.json")]
