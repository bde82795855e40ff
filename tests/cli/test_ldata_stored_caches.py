"""Builds from and into a real S3 server by the command line, and the commands that look at what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..object_server import DENIED, Fault, ObjectServer

SIZE = 32


@pytest.fixture
def bucket(s3: ObjectServer, cells: Path) -> str:
    """A bucket with the cells of two subjects."""
    url = s3.make_bucket()
    for path in sorted(cells.rglob("*.bmp"))[:8]:
        s3.write(f"{url}/cells/{path.relative_to(cells).as_posix()}", path.read_bytes())
    return url


def test_from_a_bucket_into_a_bucket(bucket, s3, scratch, ldata, json_of, error_of):
    options = [f"{bucket}/cells", "--cache", f"{bucket}/caches", "--size", SIZE, "--n-jobs", 1, "--json"]
    built = json_of(ldata("build", *options))
    [cache] = built["caches"]
    assert (built["num_processed"], cache["num_samples"]) == (8, 8)
    assert cache["directory"].startswith(f"{bucket}/caches/cells/{SIZE}-")
    local = json_of(ldata("build", f"{bucket}/cells", "--cache", "local", "--size", SIZE, "--n-jobs", 1, "--json"))
    [directory] = [Path(cache["directory"]) for cache in local["caches"]]
    shards = sorted(directory.glob("shard-*"))
    assert [s3.read(f"{cache['directory']}/{path.name}") for path in shards] == [path.read_bytes() for path in shards]

    assert [found["directory"] for found in json_of(ldata("list", "--cache", f"{bucket}/caches", "--json"))] == [
        cache["directory"]
    ]
    info = json_of(ldata("info", cache["directory"], "--json"))
    assert (info["directory"], info["num_samples"]) == (cache["directory"], 8)
    stats = json_of(ldata("stats", f"{bucket}/caches", "--split", "all", "--json"))
    assert stats["statistics"] == json_of(ldata("stats", directory, "--split", "all", "--json"))["statistics"]
    assert json_of(ldata("verify", f"{bucket}/caches", "--json"))["damages"] == []
    assert json_of(ldata("gc", "--cache", f"{bucket}/caches", "--json"))["files"] == []

    s3.remove(f"{cache['directory']}/{shards[0].name}")
    verified = ldata("verify", f"{bucket}/caches")
    assert f"{shards[0].name}: is missing" in verified.stdout
    assert "1 findings" in error_of(verified, 1)
    assert "--repair is for folders" in error_of(ldata("verify", f"{bucket}/caches", "--repair"), 2)
    # The images' own times are too fresh to be trusted, so they are read again.
    assert json_of(ldata("build", *options))["changed"]
    assert s3.read(f"{cache['directory']}/{shards[0].name}") == shards[0].read_bytes()


def test_nothing_to_do_reads_no_image(faulty_s3, cells, scratch, ldata, json_of):
    url = faulty_s3.server.make_bucket()
    options = [cells, "--cache", f"{url}/caches", "--size", SIZE, "--n-jobs", 1, "--json"]
    json_of(ldata("build", *options))
    faulty_s3.requests.clear()
    assert json_of(ldata("build", *options))["changed"] is False
    assert not faulty_s3.seen("shard-|index-|PUT")


def test_mistakes_are_one_line(faulty_s3, scratch, ldata, error_of):
    url = faulty_s3.server.make_bucket()
    told = error_of(ldata("build", "s3://name:a-secret@bucket/cells"), 2)
    assert "must not hold credentials" in told
    assert "a-secret" not in told
    assert "no images below" in error_of(ldata("build", f"{url}/nothing"), 1)
    assert "no such bucket" in error_of(ldata("list", "--cache", "s3://there-is-no-such-bucket"), 1)
    assert "no cache" in error_of(ldata("info", f"{url}/nothing"), 1)
    faulty_s3.faults[:] = [Fault(DENIED)]
    assert "the store denies it" in error_of(ldata("build", f"{url}/nothing"), 1)


def test_credentials_reach_no_file_and_no_output(faulty_s3, cells, scratch, ldata, monkeypatch):
    secret = "wJalrXUtnFEMI-of-these-tests"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    url = faulty_s3.server.make_bucket()
    outputs = [ldata("build", cells, "--cache", f"{url}/caches", "--size", SIZE, "--n-jobs", 1, "--json").output]
    faulty_s3.faults[:] = [Fault(DENIED, "PUT")]
    outputs.append(ldata("build", cells, "--cache", f"{url}/others", "--size", SIZE, "--n-jobs", 1).output)
    faulty_s3.faults.clear()
    kept = [path.read_bytes() for path in scratch.rglob("*") if path.is_file()]
    stored = [faulty_s3.server.read(f"{url}/{name}") for name in faulty_s3.server.names(url)]
    assert "denies" in outputs[1]
    assert json.loads(outputs[0][outputs[0].index("{") :])["changed"]
    assert not any(secret in text for text in outputs)
    assert not any(secret.encode() in data for data in [*kept, *stored])
