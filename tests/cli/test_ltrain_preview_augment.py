"""``ltrain preview-augment``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest


@pytest.mark.parametrize("augment", ["none", "flips", "report-a", "report-b"])
def test_grid_is_drawn(augment: str, caches: Path, tmp_path: Path, ltrain: Callable) -> None:
    out = tmp_path / "grid.png"
    options = ("--size", 48, "--augment", augment, "--images", 2, "--epochs", 3, "--out", out)
    result = ltrain("preview-augment", caches, *options)
    assert result.exit_code == 0, result.output
    assert "4 images" in result.stdout
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[1] > picture.shape[0] / 2
    assert picture.std() > 10


def test_grid_shows_the_cached_cells_in_its_first_column(caches: Path, tmp_path: Path, ltrain: Callable) -> None:
    pictures = []
    for seed in (0, 1):
        out = tmp_path / f"{seed}.png"
        ltrain("preview-augment", caches, "--size", 48, "--augment", "report-b", "--seed", seed, "--out", out)
        pictures.append(cv2.imread(str(out)))
    first, second = pictures
    columns = (first != second).any(axis=(0, 2))
    # The title names the seed, so rows of it are left out below.
    body = (first[80:] != second[80:]).any(axis=(0, 2))
    assert columns.any()
    assert not body[: first.shape[1] // 10].any()
    assert body[first.shape[1] // 5 :].any()


def test_json(caches: Path, tmp_path: Path, ltrain: Callable, json_of: Callable) -> None:
    said = json_of(ltrain("preview-augment", caches, "--size", 48, "--out", tmp_path / "a.png", "--json"))
    assert said["augmentation"]["name"] == "flips"
    assert len(said["images"]) == 6


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["--augment", "report-z"], 2, "report-z"),
        (["--size", 49], 1, "49 px"),
        (["--out", "no/such/folder/a.png"], 1, "folder does not exist"),
        (["--images", 0], 2, "--images"),
    ],
)
def test_wrong_requests(
    options: list[object], exit_code: int, words: str, caches: Path, scratch: Path, ltrain: Callable, error_of: Callable
) -> None:
    size = [] if "--size" in options else ["--size", 48]
    assert words in error_of(ltrain("preview-augment", caches, *size, *options), exit_code)
    assert list(scratch.iterdir()) == []
