from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from leukemia_data.caches.cache import Cache, SampleReader, open_cache
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split, split_indices


@pytest.fixture(scope="module")
def cache(caches: Path, dir_of_size: Callable) -> Cache:
    return open_cache(dir_of_size(caches, 64))


@pytest.fixture
def stats(caches: Path, ldata: Callable, json_of: Callable) -> Callable:
    return lambda *options: json_of(ldata("stats", "--cache", caches, "--size", 64, *options, "--json"))


def pixels_in_01(cache: Cache, numbers: np.ndarray) -> np.ndarray:
    """Pixels of some samples as float64 in [0, 1], (n, S, S, 3)."""
    return SampleReader(cache).gather(numbers) / 255.0


def test_numbers_are_numpy_s_over_all_pixels(cache: Cache, stats: Callable) -> None:
    told = stats("--split", "all")
    pixels = pixels_in_01(cache, np.arange(len(cache)))
    np.testing.assert_allclose(told["statistics"]["all"]["mean"], pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(told["statistics"]["all"]["std"], pixels.std((0, 1, 2)), rtol=1e-9)
    assert told["split"] is None
    assert set(told["statistics"]) == {"all"}
    assert told["counts"]["all"] == {
        "images": 32,
        "subjects": 8,
        "images_per_class": {"hem": 12, "all": 20, "unlabelled": 0},
        "subjects_per_class": {"hem": 3, "all": 5, "unlabelled": 0},
    }


@pytest.mark.parametrize("split", ["subject", "image", "fold:1/3"])
def test_training_part_is_that_of_the_split(split: str, cache: Cache, stats: Callable) -> None:
    told = stats("--split", split)
    numbers = split_indices(assign_split(parse_split(split), cache.table, 0), "train")
    pixels = pixels_in_01(cache, numbers)
    np.testing.assert_allclose(told["statistics"]["train"]["mean"], pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(told["statistics"]["train"]["std"], pixels.std((0, 1, 2)), rtol=1e-9)
    assert told["counts"]["train"]["images"] == len(numbers)
    assert sum(told["counts"][name]["images"] for name in told["counts"] if name != "all") == 32
    assert told["split"]["name"] == split
    assert told["split"]["stamp"].startswith("PATIENT-MIXED" if split == "image" else "subject-disjoint")


def test_subject_is_the_default(stats: Callable) -> None:
    assert stats() == stats("--split", "subject")


def test_seed_draws_another_split(stats: Callable) -> None:
    first, *others = (stats("--split-seed", seed)["statistics"] for seed in range(4))
    assert all(other["all"] == first["all"] for other in others)
    assert any(other["train"] != first["train"] for other in others)


def test_given_split_that_the_source_did_not_bring(
    caches: Path, stats: Callable, ldata: Callable, error_of: Callable
) -> None:
    message = error_of(ldata("stats", "--cache", caches, "--size", 64, "--split", "given"), 2)
    assert "given" in message
    assert "--split" in message


def test_given_split(tmp_path: Path, cells: Path, ldata: Callable, json_of: Callable) -> None:
    images = sorted(cells.rglob("*.bmp"))[::4]
    for number, image in enumerate(images):
        path = tmp_path / "lab" / ("train" if number < 5 else "valid") / image.parent.name / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.read_bytes())
    root = tmp_path / "root"
    assert ldata("build", tmp_path / "lab", "--size", 32, "--recipe", "raw", "--cache", root).exit_code == 0
    told = json_of(ldata("stats", "--cache", root, "--split", "given", "--json"))
    assert {name: counts["images"] for name, counts in told["counts"].items()} == {"all": 8, "train": 5, "valid": 3}


def test_normalize_line_can_be_pasted(caches: Path, ldata: Callable, stats: Callable) -> None:
    output = ldata("stats", "--cache", caches, "--size", 64).stdout
    [line] = [line for line in output.splitlines() if line.startswith("transforms.")]
    pasted = eval(line, {"transforms": SimpleNamespace(Normalize=lambda mean, std: (mean, std))})
    train = stats()["statistics"]["train"]
    np.testing.assert_allclose(pasted, (train["mean"], train["std"]), atol=5e-6)
    assert line.endswith("# train")


def test_report_estimator_stands_beside_the_true_numbers(
    cache: Cache, caches: Path, ldata: Callable, stats: Callable
) -> None:
    told = stats("--split", "all", "--report-estimator", "--batch-size", 8)
    batches = pixels_in_01(cache, np.arange(len(cache))).reshape(4, -1, 3)
    report = told["report_estimator"]
    np.testing.assert_allclose(report["mean"], batches.mean(1).sum(0) / 32, rtol=1e-9)
    assert (report["part"], report["batch_size"]) == ("all", 8)
    np.testing.assert_allclose(np.array(told["statistics"]["all"]["mean"]) / report["mean"], 8)
    # Its std is torch's: with Bessel's correction, one per channel and batch.
    np.testing.assert_allclose(report["std"], batches.std(1, ddof=1).sum(0) / 32, rtol=1e-4)
    text = ldata("stats", "--cache", caches, "--size", 64, "--report-estimator", "--batch-size", 8).stdout
    assert "first report's estimator on train, batches of 8 (WRONG) mean" in text
    assert "8.00 times too small" in text


def test_text_holds_the_counts_and_the_stamp(caches: Path, ldata: Callable) -> None:
    text = ldata("stats", "--cache", caches, "--size", 64, "--split", "image").stdout
    rows = {
        line.split()[0]: line.split()[1:] for line in text.splitlines() if re.match(r"(all|train|valid|test) ", line)
    }
    assert "split image, seed 0: PATIENT-MIXED" in text
    assert {"all", "train"} <= rows.keys()
    assert "32         8          12 (3)          20 (5)" in text


def test_unknown_subjects_give_the_whole_cache_and_say_why(
    tmp_path: Path, write_image: Callable, ldata: Callable, json_of: Callable, error_of: Callable
) -> None:
    for number in range(8):
        write_image(
            tmp_path / "in" / "ab"[number % 2] / f"{number}.png", np.full((20, 20, 3), 9 * number + 30, np.uint8)
        )
    root = tmp_path / "root"
    ldata("build", tmp_path / "in", "--size", 16, "--recipe", "raw", "--cache", root)
    result = ldata("stats", "--cache", root, "--json")
    assert "note: numbers of the whole cache only" in result.stderr
    assert set(json_of(result)["statistics"]) == {"all"}
    assert json_of(result)["counts"]["all"]["subjects"] == 0
    assert "# all" in ldata("stats", "--cache", root).stdout
    assert "subject" in error_of(ldata("stats", "--cache", root, "--split", "subject"), 2)
    assert (
        "unknown subjects" in json_of(ldata("stats", "--cache", root, "--split", "image", "--json"))["split"]["stamp"]
    )


# --- which cache ------------------------------------------------------------------------------------------------


def test_several_caches_are_listed_as_a_choice(
    caches: Path, dir_of_size: Callable, ldata: Callable, error_of: Callable
) -> None:
    result = ldata("stats", "--cache", caches)
    assert "several caches" in error_of(result, 2)
    listed = [line.strip() for line in result.stderr.splitlines()[1:]]
    assert sorted(listed) == sorted(str(dir_of_size(caches, size_px)) for size_px in (64, 48))


def test_size_picks_and_a_path_names(caches: Path, dir_of_size: Callable, ldata: Callable, json_of: Callable) -> None:
    by_size = json_of(ldata("stats", "--cache", caches, "--size", 48, "--json"))
    by_path = json_of(ldata("stats", dir_of_size(caches, 48), "--json"))
    assert by_size == by_path
    assert by_size["size_px"] == 48


def test_only_cache_below_the_default_root(scratch: Path, caches: Path, dir_of_size: Callable, ldata: Callable) -> None:
    shutil.copytree(dir_of_size(caches, 48), "cache/x/48-0123456789ab")
    assert "48 px" in ldata("stats").stdout


@pytest.mark.parametrize(
    ("options", "exit_code", "word"),
    [
        (["--size", 50], 1, "50 px"),
        (["nowhere"], 1, "nowhere"),
        (["--size", 64, "--split", "half"], 2, "half"),
        (["--size", 64, "--split", "fold:4/3"], 2, "fold:4/3"),
        (["--size", 64, "--split", "fold:1/9"], 2, "fold:1/9"),
        (["--size", 64, "--split-seed", -1], 2, "--split-seed"),
        (["--size", 64, "--batch-size", 0], 2, "--batch-size"),
    ],
)
def test_wrong_request(
    options: list[object], exit_code: int, word: str, caches: Path, ldata: Callable, error_of: Callable
) -> None:
    assert word in error_of(ldata("stats", "--cache", caches, *options), exit_code)


def test_no_cache_yet(scratch: Path, ldata: Callable, error_of: Callable) -> None:
    assert "ldata build" in error_of(ldata("stats"), 1)
    assert list(scratch.iterdir()) == []


def test_no_image_byte_is_read(own_caches: Path, dir_of_size: Callable, ldata: Callable) -> None:
    """Zeros in place of the pixels change nothing; only the files' sizes are looked at."""
    directory = dir_of_size(own_caches, 64)
    before = ldata("stats", directory).stdout
    for shard in directory.glob("shard-*.h5"):
        shard.write_bytes(bytes(shard.stat().st_size))
    assert ldata("stats", directory).stdout == before
