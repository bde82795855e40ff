"""Frames that predict the class, and frames unlike those of training: every command concerned warns of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leukemia_data.caches.cache import find_cache_dirs
from leukemia_data.scanning.scan import with_frames
from leukemia_data.sources.source import list_source

RAW = ("--size", 64, "--n-jobs", 1)
NETWORK = ("--model", "resnet18-narrow", "--batch-size", 8, "--device", "cpu", "--epochs", 1)


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory, write_image: Callable) -> Path:
    """Twelve frames a class on black: those of Blast are of 40 px, those of Healthy of 500 px."""
    root = tmp_path_factory.mktemp("framed")
    rng = np.random.default_rng(0)
    for name, side in (("Blast", 40), ("Healthy", 500)):
        for number in range(12):
            frame = np.zeros((side, side, 3), np.uint8)
            frame[side // 3 : side // 2, side // 3 : side // 2] = rng.integers(60, 250, 3)
            write_image(root / "cells" / name / f"{number}.png", frame)
    return root


@pytest.fixture(scope="module")
def built(framed: Path, ldata: Callable) -> tuple[str, Path]:
    """What the build said on stderr and stdout, in order, and its cache."""
    result = ldata("build", framed / "cells", *RAW, "--cache", framed / "cache")
    assert result.exit_code == 0, result.output
    return result.output, find_cache_dirs(framed / "cache")[0]


@pytest.fixture(scope="module")
def run(framed: Path, built: tuple[str, Path], ltrain: Callable) -> tuple[str, Path]:
    """What a training said, and its folder."""
    options = ("--cache", built[1], *NETWORK, "--split", "image", "--allow-leak")
    result = ltrain(*options, "--out", framed / "run")
    assert result.exit_code == 0, result.output
    return result.stderr, framed / "run"


def test_a_build_says_it_once(built: tuple[str, Path], framed: Path, ldata: Callable) -> None:
    output, _ = built
    [line] = [line for line in output.splitlines() if line.startswith("warning: the frames alone tell the classes")]
    assert "Blast: 40x40 px, 100% padded" in line
    assert "Healthy: 500x500 px, 100% cropped (19% of the frame)" in line
    assert "--recipe fit" in line
    assert output.count("tell the classes apart") == 1
    as_json = ldata("build", framed / "cells", *RAW, "--cache", framed / "other", "--json")
    assert "tell the classes apart" in as_json.stderr
    json.loads(as_json.stdout)


def test_scan_and_audit_say_it(framed: Path, built: tuple[str, Path], ldata: Callable, json_of: Callable) -> None:
    scanned = json_of(ldata("scan", framed / "cells", "--json"))
    assert "tell the classes apart" in scanned["cautions"][0]
    assert scanned["reading"]["frame_finding"]["balanced_accuracy"] == 1
    for audited in (framed / "cells", built[1]):
        checks = json_of(ldata("audit", audited, "--no-near", "--json"))["checks"]
        (check,) = [check for check in checks if check["key"] == "frames_tell"]
        assert (check["verdict"], "balanced accuracy of 1.00" in check["text"]) == ("LOOK", True)


def test_training_says_it_before_the_first_step_and_on_each_page(run: tuple[str, Path]) -> None:
    said, folder = run
    assert said.count("warning: the frames alone tell the classes apart") == 1
    assert said.index("tell the classes apart") < said.index("epoch ")
    for part in ("valid", "test"):
        results = json.loads((folder / part / "results.json").read_text(encoding="utf-8"))
        (caution,) = [text for text in results["cautions"] if "frames alone" in text]
        assert "balanced accuracy of 1.00" in caution
        assert caution in (folder / part / "summary.md").read_text(encoding="utf-8")


def test_a_cross_validation_says_it_once_and_at_its_end(framed: Path, ltrain: Callable, ldata: Callable) -> None:
    source = framed / "people"
    for path in sorted((framed / "cells").rglob("*.png")):
        place = source / path.parent.name / f"{path.parent.name[0]}{int(path.stem) % 4}" / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    read = ("--class-level", 1, "--subject-from", "folder")
    assert ldata("build", source, *RAW, *read, "--cache", framed / "people-cache").exit_code == 0
    out = framed / "folds"
    result = ltrain("kfold", "--cache", framed / "people-cache", *NETWORK, "--folds", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("tell the classes apart") == 1
    assert result.stdout.count("The frames alone tell the classes apart") == 1
    assert "The frames alone tell the classes apart" in (out / "summary.md").read_text(encoding="utf-8")


def test_frames_as_in_training_and_others_are_predicted(
    run: tuple[str, Path], framed: Path, ltrain: Callable, write_image: Callable, tmp_path: Path
) -> None:
    alike = ltrain("predict", run[1], framed / "cells" / "Blast", "--out", tmp_path / "a.csv")
    assert (alike.exit_code, "differ from those of training" in alike.stderr) == (0, False)
    for number in range(4):
        frame = np.full((1000, 1200, 3), 240, np.uint8)
        frame[400:600, 500:700] = (90, 20, 120)
        write_image(tmp_path / "photos" / f"{number}.png", frame)
    other = ltrain("predict", run[1], tmp_path / "photos", "--out", tmp_path / "b.csv")
    assert other.exit_code == 0, other.output
    (line,) = [line for line in other.stderr.splitlines() if "differ from those of training" in line]
    assert "4 of 4 images are 1000x1200 px, 100% cropped (83% of the frame)" in line
    assert "4 of 4 lie on bright ground" in line
    assert "on black ground" in line
    results = json.loads((run[1] / "test" / "results.json").read_text(encoding="utf-8"))
    assert "frames" not in results["settings"]


@pytest.mark.real
def test_real_cells_give_no_alarm(real_data: Path, ldata: Callable) -> None:
    source = real_data / "cnmc_fold1"
    found = with_frames(list_source([source])).reading.frame_finding
    assert found is not None
    assert not found.tells_class
    assert "caution" not in ldata("scan", source).output
