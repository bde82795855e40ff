"""Places of the commands that use a run: addresses in a store do as folders do, or are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ..object_server import ObjectServer

CPU = ("--device", "cpu")


@pytest.fixture
def url(s3: ObjectServer, cells: Path) -> str:
    """The sample in a bucket, and a list of some of its images."""
    root = f"{s3.make_bucket()}/cells"
    for path in cells.rglob("*"):
        if path.is_file():
            s3.write(f"{root}/{path.relative_to(cells).as_posix()}", path.read_bytes())
    return root


@pytest.fixture
def listed(cells: Path, scratch: Path) -> Path:
    names = [path.relative_to(cells).as_posix() for path in sorted(cells.rglob("*.bmp"))[:5]]
    (scratch / "list.csv").write_text("".join(f"{line}\n" for line in ["Path", *names]), encoding="utf-8")
    return Path("list.csv")


def test_submissions_from_a_root_and_lists_in_a_store(
    finished_run: Path, cells: Path, listed: Path, url: str, s3: ObjectServer, ltrain: Callable
) -> None:
    s3.write(f"{url}/list.csv", listed.read_bytes())
    for out, lists, root in (
        ("local", [listed], ["--root", cells]),
        ("root", [listed], ["--root", url]),
        ("both", [f"{url}/list.csv"], []),
    ):
        result = ltrain("submit", finished_run, *lists, *root, "--out-dir", out, *CPU)
        assert result.exit_code == 0, result.output
        assert Path(out, "list.csv").read_bytes() == Path("local", "list.csv").read_bytes()


def test_predictions_of_images_in_a_store(
    finished_run: Path, cells: Path, listed: Path, url: str, ltrain: Callable
) -> None:
    for out, arguments in (
        ("local.csv", [cells]),
        ("url.csv", [url]),
        ("local-list.csv", [listed, "--root", cells]),
        ("url-list.csv", [listed, "--root", url]),
    ):
        result = ltrain("predict", finished_run, *arguments, "--out", out, *CPU)
        assert result.exit_code == 0, result.output
    for name in ("", "-list"):
        assert Path(f"url{name}.csv").read_bytes() == Path(f"local{name}.csv").read_bytes()


@pytest.mark.usefixtures("scratch")
def test_an_outside_set_in_a_store(own_run: Path, cells: Path, url: str, ltrain: Callable) -> None:
    found = []
    for place in (cells, url):
        out = Path(f"out-{len(found)}")
        result = ltrain("evaluate", own_run, place, "--out", out, "--draws", 100, *CPU)
        assert result.exit_code == 0, result.output
        found.append(json.loads((out / "results.json").read_text(encoding="utf-8")))
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[1]["judging"]["outside"]["images"] == [url]


@pytest.mark.parametrize(
    "line",
    [
        ("evaluate", "URL"),
        ("evaluate", "RUN", "--out", "URL"),
        ("evaluate", "RUN", "--local-copies", "URL"),
        ("predict", "URL"),
        ("predict", "RUN", "--out", "URL"),
        ("predict", "RUN", "--submission", "URL"),
        ("submit", "URL", "list.csv"),
        ("submit", "RUN", "list.csv", "--out-dir", "URL"),
        ("compare", "RUN", "URL"),
        ("compare", "RUN", "RUN", "--out", "URL"),
        ("preview-augment", "--out", "URL"),
        ("batchnorm-demo", "--out", "URL"),
    ],
    ids=" ".join,
)
def test_an_address_is_refused_where_a_path_is_needed(
    line: tuple[str, ...], finished_run: Path, listed: Path, scratch: Path, ltrain: Callable, error_of: Callable
) -> None:
    places = {"RUN": finished_run, "URL": "s3://bucket/place"}
    message = error_of(ltrain(*(places.get(word, word) for word in line)), 2)
    assert "s3://bucket/place is an address" in message
    assert list(scratch.iterdir()) == [scratch / listed.name]
