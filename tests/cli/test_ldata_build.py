from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from leukemia_data.caches.cache import SampleReader, open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.operations.recipe import Preprocessor, load_recipe
from leukemia_data.sources.source_choice import SAMPLE_DIR_NAME

RAW = ("--recipe", "raw", "--size", 32)
OWN_RECIPE = """
description = "mine"

[[step]]
op = "canvas"
side_px = 60

[[step]]
op = "center_crop"
side_px = 40

[[step]]
op = "resize"
"""


@pytest.fixture
def source(scratch: Path, write_image: Callable, age_files: Callable) -> Path:
    """Folder ``cells`` with two classes of six small images."""
    rng = np.random.default_rng(5)
    for number in range(12):
        folder = scratch / "cells" / ("blast" if number % 2 else "normal") / f"p{number // 4}"
        write_image(folder / f"{number}.png", rng.integers(0, 256, (60, 50, 3), dtype=np.uint8))
    age_files(scratch / "cells")
    return scratch / "cells"


@pytest.fixture
def spoiled(source: Path) -> Path:
    """The same with three unusable files among them."""
    whole = (source / "normal" / "p0" / "0.png").read_bytes()
    (source / "normal" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "normal" / "empty.bmp").write_bytes(b"")
    (source / "blast" / "text.png").write_text("not an image", encoding="utf-8")
    return source


# --- which source -----------------------------------------------------------------------------------------------


def test_named_source_comes_first(source: Path, ldata: Callable) -> None:
    shutil.copytree(source, "data")
    result = ldata("build", source, *RAW, env={"LDATA_SOURCE": "elsewhere"})
    assert result.exit_code == 0
    first, *rest = result.stderr.splitlines()
    assert first == f"source: {source} (given)"
    assert "  classes: blast 6, normal 6 (from folder level 1)" in rest
    assert len(rest) <= 12
    assert Path("cache/cells").is_dir()


def test_then_the_variable(source: Path, ldata: Callable) -> None:
    shutil.copytree(source, "data")
    result = ldata("build", *RAW, env={"LDATA_SOURCE": str(source)})
    assert result.exit_code == 0
    assert f"source: {source} (from $LDATA_SOURCE)" in result.stderr


def test_then_the_folder_data(source: Path, ldata: Callable) -> None:
    source.rename("data")
    result = ldata("build", *RAW)
    assert result.exit_code == 0
    assert "source: data (no SOURCE given" in result.stderr
    assert Path("cache/data").is_dir()


def test_then_the_built_in_sample(scratch: Path, ldata: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leukemia_data.sources.source_choice.SAMPLE_SUBJECTS", 3)
    monkeypatch.setattr("leukemia_data.sources.source_choice.SAMPLE_CELLS", 2)
    result = ldata("build", *RAW)
    assert result.exit_code == 0
    assert "the built-in sample of generated cells" in result.stderr
    assert len(list((scratch / "cache" / SAMPLE_DIR_NAME).rglob("*.bmp"))) == 6
    assert (scratch / "cache" / "sample").is_dir()
    assert ldata("build", *RAW).exit_code == 0


def test_interrupted_sample_is_completed(scratch: Path, ldata: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leukemia_data.sources.source_choice.SAMPLE_SUBJECTS", 3)
    monkeypatch.setattr("leukemia_data.sources.source_choice.SAMPLE_CELLS", 2)
    calls = []

    def stop_at_the_third(_: object, count: int = 1) -> None:
        calls.append(count)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("leukemia_data.console.NullProgress.update", stop_at_the_third)
        assert ldata("build", *RAW).exit_code == 130
    assert not (scratch / "cache" / SAMPLE_DIR_NAME).exists()
    assert ldata("build", *RAW).exit_code == 0
    assert len(list((scratch / "cache" / SAMPLE_DIR_NAME).rglob("*.bmp"))) == 6


# --- what is built ----------------------------------------------------------------------------------------------


def test_two_sizes_hold_the_recipe_s_pixels(cells: Path, caches: Path, dir_of_size: Callable) -> None:
    for size_px in (64, 48):
        cache = open_cache(dir_of_size(caches, size_px))
        assert cache.size_px == size_px
        assert len(cache) == 32
        preprocess = Preprocessor(load_recipe("raw"), [size_px])
        reader = SampleReader(cache)
        for number in (0, 13, 31):
            frame = cv2.cvtColor(cv2.imread(str(cells / cache.table.id_texts[number])), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(reader.image(number), preprocess(frame)[size_px])


def test_summary_has_images_sizes_bytes_rate_quarantined_and_places(source: Path, ldata: Callable) -> None:
    result = ldata("build", source, *RAW, "--size", 16)
    directories = sorted(Path("cache/cells").iterdir())
    lines = result.stdout.splitlines()
    assert "12 images" in lines[0]
    assert "images/s" in lines[0]
    assert "12 preprocessed, 0 copied, 0 kept, 0 quarantined" in lines[0]
    for size_px, line in zip((32, 16), lines[1:], strict=False):
        [directory] = [path for path in directories if path.name.startswith(f"{size_px}-")]
        assert line.split()[:3] == [str(size_px), "px", str(directory)]
        assert "12 images" in line
        assert "kB" in line


def test_json_is_pure_and_complete(source: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("build", source, *RAW, "--json"))
    assert (told["changed"], told["num_images"], told["num_processed"], told["quarantined"]) == (True, 12, 12, [])
    [cache] = told["caches"]
    manifest = load_manifest(Path(cache["directory"]))
    assert cache["fingerprint"] == manifest.fingerprint
    assert (cache["size_px"], cache["num_samples"], cache["num_bytes"]) == (32, 12, manifest.num_bytes)
    again = json_of(ldata("build", source, *RAW, "--json"))
    assert (again["changed"], again["num_processed"], again["caches"]) == (False, 0, told["caches"])


def test_second_build_has_nothing_to_do(source: Path, ldata: Callable, files_below: Callable) -> None:
    ldata("build", source, *RAW)
    before = files_below(Path("cache"))
    result = ldata("build", source, *RAW)
    assert result.stdout.startswith("Nothing to do: 12 images unchanged")
    assert files_below(Path("cache")) == before


def test_rebuild_costs_only_what_changed(
    source: Path, ldata: Callable, json_of: Callable, write_image: Callable
) -> None:
    ldata("build", source, *RAW)
    write_image(source / "blast" / "p9" / "new.png", np.full((30, 30, 3), 77, np.uint8))
    (source / "normal" / "p0" / "0.png").unlink()
    told = json_of(ldata("build", source, *RAW, "--json"))
    assert (told["num_images"], told["num_processed"]) == (12, 1)


def test_own_recipe_file(source: Path, ldata: Callable) -> None:
    Path("mine.toml").write_text(OWN_RECIPE, encoding="utf-8")
    assert ldata("build", source, "--recipe", "mine.toml", "--size", 20).exit_code == 0
    [directory] = Path("cache/cells").iterdir()
    manifest = load_manifest(directory)
    assert (manifest.recipe.name, manifest.recipe.description) == ("mine", "mine")
    assert [step.op for step in manifest.recipe.steps] == ["canvas", "center_crop", "resize"]


@pytest.mark.parametrize("recipe", ["fit", "photo", "photo-cell"])
def test_photographs_of_any_shape_are_built_in_both_sizes_at_once(
    recipe: str, scratch: Path, ldata: Callable, json_of: Callable, write_image: Callable
) -> None:
    for number, shape in enumerate([(300, 400), (410, 200), (28, 28), (1, 60)]):
        frame = np.full((*shape, 3), 225, np.uint8)
        cv2.circle(frame, (shape[1] // 2, shape[0] // 2), min(shape) // 5, (96, 52, 128), -1)
        write_image(scratch / "photos" / "ab"[number % 2] / f"{number}.png", frame)
    told = json_of(ldata("build", "photos", "--recipe", recipe, "--size", 128, "--size", 224, "--json"))
    assert told["num_processed"] == 4
    caches = [open_cache(folder) for folder in Path("cache/photos").iterdir()]
    assert {cache.size_px for cache in caches} == {128, 224}
    for cache in caches:
        preprocess = Preprocessor(load_recipe(recipe), [cache.size_px], limit_region=False)
        reader = SampleReader(cache)
        for number, name in enumerate(cache.table.id_texts):
            frame = cv2.cvtColor(cv2.imread(str(scratch / "photos" / name)), cv2.COLOR_BGR2RGB)
            np.testing.assert_array_equal(reader.image(number), preprocess(frame)[cache.size_px])


def test_default_size_is_224(source: Path, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("build", source, "--recipe", "raw", "--json"))
    assert [cache["size_px"] for cache in told["caches"]] == [224]


def test_name_and_cache_place_it(source: Path, ldata: Callable) -> None:
    assert ldata("build", source, *RAW, "--cache", "deep/er", "--name", "my.cells-1").exit_code == 0
    assert len(list(Path("deep/er/my.cells-1").glob("32-*/manifest.json"))) == 1


def test_lab_tables_with_root(scratch: Path, cells: Path, ldata: Callable, json_of: Callable) -> None:
    images = sorted(cells.rglob("*.bmp"))[:9]
    (scratch / "lab" / "new_dataset").mkdir(parents=True)
    for number, image in enumerate(images):
        shutil.copy2(image, scratch / "lab" / "new_dataset" / f"{number}.bmp")
    rows = [f"./new_dataset/{number}.bmp" for number in range(9)]
    Path("train.csv").write_text("Path,label\n" + "".join(f"{row},{k % 2}\n" for k, row in enumerate(rows[:5])))
    Path("valid.csv").write_text("Path,label\n" + "".join(f"{row},{k % 2}\n" for k, row in enumerate(rows[5:7])))
    Path("resnet_18_test.csv").write_text("Path\n" + "".join(f"{row}\n" for row in rows[7:]))
    Path("resnet_50_test.csv").write_text("Path\n" + "".join(f"{row}\n" for row in reversed(rows[7:])))
    tables = ["train.csv", "valid.csv", "resnet_18_test.csv", "resnet_50_test.csv"]
    told = json_of(ldata("build", *tables, "--root", "lab", "--name", "lab", *RAW, "--json"))
    table = open_cache(Path(told["caches"][0]["directory"])).table
    found = dict(zip(table.id_texts, zip(table.splits.tolist(), table.labels.tolist(), strict=True), strict=True))
    assert found == {
        **{row: (b"train", k % 2) for k, row in enumerate(rows[:5])},
        **{row: (b"valid", k % 2) for k, row in enumerate(rows[5:7])},
        **dict.fromkeys(rows[7:], (b"test", -1)),
    }


def test_lab_table_without_its_images_is_refused_with_root(scratch: Path, ldata: Callable, error_of: Callable) -> None:
    Path("train.csv").write_text("Path,label\n./new_dataset/1.bmp,1\n", encoding="utf-8")
    assert "--root" in error_of(ldata("build", "train.csv"), 1)


# --- wrong requests: one line, nothing written or lost ------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["cells", "--recipe", "nope"], 2, ["nope", "report-a"]),
        (["cells", "--recipe", "nope.toml"], 2, ["nope.toml"]),
        (["cells", "--recipe", "bad.toml"], 2, ["bad.toml", "step 1", "side_px"]),
        (["cells", "--recipe", "broken.toml"], 2, ["broken.toml", "TOML"]),
        (["cells", "--recipe", "fixed.toml", "--size", 64], 2, ["100 px", "64 px"]),
        (["cells", "--recipe", "report-b", "--size", 451], 2, ["451", "450"]),
        (["cells", "--size", 0], 2, ["--size", "0"]),
        (["cells", "--size", -3], 2, ["--size", "-3"]),
        (["cells", "--size", 99999], 2, ["--size", "99999"]),
        (["cells", "--size", "big"], 2, ["--size", "big"]),
        (["cells", "--name", "../up"], 2, ["--name", "../up"]),
        (["cells", "--name", ""], 2, ["--name"]),
        (["cells", "--max-bad", "some"], 2, ["--max-bad", "some"]),
        (["cells", "--max-bad", "-1", "--on-error", "quarantine"], 2, ["--max-bad", "-1"]),
        (["cells", "--max-bad", "101%"], 2, ["--max-bad", "101%"]),
        (["cells", "--on-error", "ignore"], 2, ["--on-error", "quarantine"]),
        (["cells", "--n-jobs", 0], 2, ["--n-jobs", "-1"]),
        (["cells", "--n-jobs", "x"], 2, ["--n-jobs"]),
        (["cells", "--cache", "file.txt"], 2, ["--cache", "file.txt"]),
        (["cells", "--cache", "file.txt/below"], 1, ["file.txt"]),
        (["cells", "--root", "nowhere"], 2, ["--root", "nowhere"]),
        (["nowhere"], 2, ["nowhere"]),
        (["file.txt"], 2, ["file.txt", ".csv"]),
        (["cells/normal/p0/0.png"], 2, ["0.png"]),
        (["empty"], 1, ["empty", ".bmp"]),
        (["wrong.csv"], 1, ["wrong.csv", "Path"]),
        (["cells/normal/p0"], 1, ["class"]),
    ],
)
def test_wrong_request_writes_nothing(
    options: list[object],
    exit_code: int,
    words: list[str],
    scratch: Path,
    source: Path,
    ldata: Callable,
    error_of: Callable,
    files_below: Callable,
) -> None:
    Path("empty").mkdir()
    Path("file.txt").write_text("mine", encoding="utf-8")
    Path("wrong.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    Path("bad.toml").write_text('[[step]]\nop = "canvas"\nside_px = "wide"\n', encoding="utf-8")
    Path("broken.toml").write_text("[[step]\n", encoding="utf-8")
    Path("fixed.toml").write_text(
        '[[step]]\nop = "canvas"\n[[step]]\nop = "center_crop"\nside_px = 100\n', encoding="utf-8"
    )
    before = files_below(scratch)
    message = error_of(ldata("build", *options), exit_code)
    assert all(word in message for word in words), message
    assert files_below(scratch) == before


def test_another_source_under_the_same_name_is_refused(
    scratch: Path, source: Path, ldata: Callable, error_of: Callable, write_image: Callable, files_below: Callable
) -> None:
    ldata("build", source, *RAW)
    before = files_below(Path("cache"))
    for class_name in ("a", "b"):
        write_image(scratch / "other" / class_name / "x.png", np.full((20, 20, 3), 9, np.uint8))
    assert "--name" in error_of(ldata("build", "other", *RAW, "--name", "cells"), 1)
    assert files_below(Path("cache")) == before


# --- unusable images ----------------------------------------------------------------------------------------------


def test_unusable_images_are_named_by_path_and_reason(spoiled: Path, ldata: Callable, error_of: Callable) -> None:
    result = ldata("build", spoiled, *RAW)
    assert "3 of 15 images cannot be used" in error_of(result, 1)
    assert "quarantine" in result.stderr
    told = result.stderr[result.stderr.index("Error: ") :]
    lines = [line.strip() for line in told.splitlines() if line.startswith("  ")]
    reasons = dict(line.split(": ", 1) for line in lines)
    assert reasons.keys() == {"normal/cut.png", "normal/empty.bmp", "blast/text.png"}
    assert "empty" in reasons["normal/empty.bmp"]
    assert not list(Path("cache").rglob("manifest.json"))


def test_failed_build_leaves_the_earlier_cache_intact(
    source: Path, ldata: Callable, error_of: Callable, files_below: Callable
) -> None:
    ldata("build", source, *RAW)
    [directory] = Path("cache/cells").iterdir()
    before = files_below(directory)
    (source / "blast" / "bad.png").write_bytes(b"rubbish")
    error_of(ldata("build", source, *RAW), 1)
    assert before.items() <= files_below(directory).items()
    assert ldata("verify", directory).exit_code == 0


def test_quarantine_lists_and_counts(spoiled: Path, ldata: Callable, json_of: Callable) -> None:
    quarantine = ("--on-error", "quarantine", "--max-bad", 3)
    result = ldata("build", spoiled, *RAW, *quarantine)
    assert result.exit_code == 0
    assert "3 quarantined" in result.stdout
    assert "  quarantined: normal/empty.bmp: " in result.stdout
    [directory] = Path("cache/cells").iterdir()
    manifest = load_manifest(directory)
    names = {"normal/cut.png", "normal/empty.bmp", "blast/text.png"}
    assert {image.record_id for image in manifest.quarantined} == names
    assert manifest.num_samples == 12
    told = json_of(ldata("build", spoiled, *RAW, *quarantine, "--json"))
    assert {image["record_id"] for image in told["quarantined"]} == names
    assert all(image["reason"] for image in told["quarantined"])
    assert ldata("info", directory).stdout.count("normal/cut.png") == 1


@pytest.mark.parametrize("max_bad", ["2", "13.3%", "19.9%"])
def test_more_than_max_bad_fails(max_bad: str, spoiled: Path, ldata: Callable, error_of: Callable) -> None:
    result = ldata("build", spoiled, *RAW, "--on-error", "quarantine", "--max-bad", max_bad)
    assert "--max-bad" in error_of(result, 1)
    assert not list(Path("cache").rglob("manifest.json"))


@pytest.mark.parametrize("max_bad", ["3", "20%", "100%"])
def test_up_to_max_bad_is_enough(max_bad: str, spoiled: Path, ldata: Callable) -> None:
    assert ldata("build", spoiled, *RAW, "--on-error", "quarantine", "--max-bad", max_bad).exit_code == 0


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, make_frame: Callable, write_image: Callable) -> Path:
    """300 cell-like frames in two classes: at least three shards. Several names share one file's bytes."""
    folder = tmp_path_factory.mktemp("many") / "many"
    rng = np.random.default_rng(7)
    frames = [write_image(folder.parent / f"{number}.png", make_frame(rng)) for number in range(6)]
    for number in range(300):
        path = folder / ("a" if number % 3 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(frames[number % 6].read_bytes())
        os.utime(path, ns=(1_600_000_000_000_000_000, 1_600_000_000_000_000_000))
    return folder


def _shards(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.rglob("shard-*.h5")}


def test_bytes_do_not_depend_on_the_number_of_processes(
    many: Path, tmp_path: Path, ldata: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Workers take over what this process has for folders of temporary files.
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for n_jobs in (1, 2):
        result = ldata("build", many, *RAW, "--cache", tmp_path / str(n_jobs), "--n-jobs", n_jobs)
        assert result.exit_code == 0, result.output
    assert len(_shards(tmp_path / "1")) >= 3
    assert _shards(tmp_path / "1") == _shards(tmp_path / "2")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_says_one_line_and_the_next_build_goes_on(
    n_jobs: int, many: Path, tmp_path: Path, ldata: Callable, json_of: Callable, start_process: Callable
) -> None:
    # report-a and a large size, so that there is time to interrupt.
    options = (many, "--size", 224, "--cache", tmp_path / "cache")
    process = start_process("ldata", "build", *options, "--n-jobs", n_jobs, cwd=tmp_path, python=[sys.executable])
    deadline_s = time.monotonic() + 60
    while not list(tmp_path.rglob("receipts/*.json")) and time.monotonic() < deadline_s:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    first, *rest = stderr.splitlines()
    assert first.startswith("source: ")
    # Once in dozens of runs joblib's own clean-up process warns, harmlessly, of a semaphore that is gone already.
    # Lines with two blanks before them say how the source is understood.
    harmless = ("resource_tracker", "warnings.warn")
    told = [line for line in rest if not line.startswith("  ") and not any(word in line for word in harmless)]
    assert len(told) == 1, stderr
    assert told[0].startswith("Error: interrupted")
    assert not list(tmp_path.rglob("manifest.json"))
    summary = json_of(ldata("build", *options, "--n-jobs", 1, "--json"))
    assert 0 < summary["num_processed"] < 300
    assert summary["num_processed"] + summary["num_copied"] + summary["num_kept"] == 300


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
def test_ctrl_c_while_workers_start_prints_no_traceback(many: Path, tmp_path: Path, start_process: Callable) -> None:
    """The workers hear of Ctrl-C too; they are not yet ready to take it when they still load libraries."""
    process = start_process(
        "ldata", "build", many, "--cache", tmp_path / "cache", "--n-jobs", 2, cwd=tmp_path, python=[sys.executable]
    )
    deadline_s = time.monotonic() + 60
    while not list(tmp_path.rglob(".lock")) and time.monotonic() < deadline_s:
        time.sleep(0.005)
    time.sleep(0.15)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "\nError: interrupted" in stderr


def test_json_of_a_real_process_is_pure_and_nothing_is_written_elsewhere(
    source: Path, scratch: Path, start_process: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch / "elsewhere").mkdir()
    for variable in ("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(scratch / "elsewhere"))
    process = start_process("ldata", "build", source, *RAW, "--json", cwd=scratch)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(stdout)["num_images"] == 12
    assert stderr.startswith("source: ")
    assert list((scratch / "elsewhere").iterdir()) == []
    assert sorted(path.name for path in scratch.iterdir()) == ["cache", "cells", "elsewhere"]
