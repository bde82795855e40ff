"""Addresses wherever ``ldata`` takes a place: it works as with a folder, or says in one line that it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ..object_server import ObjectServer

QUICK = ("--no-near", "--json")


@pytest.fixture
def bucket(s3: ObjectServer, cells: Path, caches: Path) -> str:
    """A bucket with some cells and the cache of 48 px of all of them."""
    url = s3.make_bucket()
    for path in sorted(cells.rglob("*.bmp"))[::4]:
        s3.write(f"{url}/cells/{path.relative_to(cells).as_posix()}", path.read_bytes())
    for path in next((caches / "cells").glob("48-*")).iterdir():
        if path.suffix in (".h5", ".json"):
            s3.write(f"{url}/caches/cells/{path.parent.name}/{path.name}", path.read_bytes())
    return url


@pytest.fixture
def some_cells(cells: Path, tmp_path: Path) -> Path:
    """The cells that are in the bucket, in a folder of the same name."""
    for path in sorted(cells.rglob("*.bmp"))[::4]:
        copy = tmp_path / "local" / "cells" / path.relative_to(cells)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path / "local" / "cells"


def without_places(said: dict) -> dict:
    return {name: value for name, value in said.items() if name not in ("arguments", "notes")}


def test_audit_of_a_source(bucket, some_cells, scratch, ldata, json_of):
    there, here = (json_of(ldata("audit", place, *QUICK)) for place in (f"{bucket}/cells", some_cells))
    assert there["arguments"][0] == {"name": f"{bucket}/cells", "kind": "source", "text": "source", "images": 8}
    assert without_places(there) == without_places(here)


def test_audit_of_a_cache(bucket, caches, scratch, ldata, json_of):
    there = json_of(ldata("audit", f"{bucket}/caches", *QUICK))
    here = json_of(ldata("audit", caches, "--size", 48, *QUICK))
    assert (there["arguments"][0]["kind"], there["arguments"][0]["images"]) == ("cache", 32)
    assert without_places(there) == without_places(here)


def test_preview_and_scan(bucket, scratch, ldata, json_of):
    drawn = json_of(ldata("preview", f"{bucket}/cells", "--recipe", "raw", "--size", 32, "--images", 1, "--json"))
    assert len(drawn["images"]) == 2
    assert Path("preview.png").stat().st_size > 1000
    assert json_of(ldata("scan", f"{bucket}/cells", "--json"))["num_images"] == 8


def test_recovery_of_subjects_of_files_in_a_store(bucket, some_cells, scratch, ldata, json_of):
    names = [path.relative_to(some_cells).as_posix() for path in sorted(some_cells.rglob("*.bmp"))]
    Path("lab.csv").write_text("Path\n" + "\n".join(names) + "\n", encoding="utf-8")
    options = ("lab.csv", "--reference", some_cells, "--json")
    there = json_of(ldata("recover-subjects", *options, "--root", f"{bucket}/cells", "--out-dir", "there"))
    here = json_of(ldata("recover-subjects", *options, "--root", some_cells, "--out-dir", "here"))
    assert there["all"] == here["all"]
    assert there["all"]["found"] == 8
    assert Path("there/lab.csv").read_bytes() == Path("here/lab.csv").read_bytes()


def test_repair_from_a_source_in_a_store(bucket, some_cells, scratch, ldata, json_of, files_below):
    json_of(ldata("build", some_cells, "--size", 32, "--recipe", "raw", "--cache", "own", "--n-jobs", 1, "--json"))
    shard = next(Path("own").rglob("shard-*.h5"))
    intact = shard.read_bytes()
    shard.write_bytes(intact[:-400] + bytes(400))
    repaired = json_of(ldata("verify", "own", "--cache", "own", "--repair", "--source", f"{bucket}/cells", "--json"))
    assert repaired["mended"] == [shard.name]
    assert shard.read_bytes() == intact


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "URL/new"),
        ("preview", "cells", "--out", "URL/sheet.png"),
        ("preview", "cells", "--cache", "URL/caches"),
        ("audit", "cells", "--out", "URL/audit"),
        ("audit", "--reference", "URL/names.csv"),
        ("recover-subjects", "URL/lab.csv", "--reference", "cells"),
        ("recover-subjects", "lab.csv", "--reference", "URL/cells"),
        ("recover-subjects", "lab.csv", "--reference", "cells", "--out-dir", "URL/out"),
        ("verify", "URL/caches", "--quick"),
        ("verify", "URL/caches", "--repair"),
        ("convert", "URL/caches"),
        ("convert", "cache", "--out", "URL/copy"),
        ("push", "URL/caches", "copy"),
        ("pull", "URL/caches", "URL/copy"),
        ("info", "URL/caches", "--stage-dir", "URL/stage"),
        ("recipes", "URL/recipe.toml"),
    ],
)
def test_what_is_for_this_machine_is_refused_in_one_line(arguments, scratch, ldata, error_of: Callable) -> None:
    # No store is accessed: there is none at this address.
    url = "s3://no-such-bucket"
    said = error_of(ldata(*(argument.replace("URL", url) for argument in arguments)), 2)
    assert "no-such-bucket" in said
    assert len(said.strip().splitlines()) == 1
