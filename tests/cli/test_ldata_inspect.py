"""``ldata info``, ``list`` and ``recipes``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.caches.manifest import load_manifest
from leukemia_data.operations.recipe import preset_names


def test_info_as_json(caches: Path, dir_of_size: Callable, ldata: Callable, json_of: Callable) -> None:
    directory = dir_of_size(caches, 64)
    manifest = load_manifest(directory)
    told = json_of(ldata("info", directory, "--json"))
    assert told["directory"] == str(directory)
    assert (told["name"], told["size_px"], told["fingerprint"]) == ("cells", 64, manifest.fingerprint)
    assert (told["num_samples"], told["num_subjects"], told["num_shards"]) == (32, 8, 1)
    assert told["images_per_class"] == {"hem": 12, "all": 20}
    assert told["given_splits"] == {"train": 32}
    assert told["given_folds"] == {"0": 12, "1": 12, "2": 8}
    assert told["num_bytes"] == manifest.num_bytes
    assert told["recipe"] == manifest.recipe.to_dict()
    assert told["quarantined"] == []
    assert {"opencv", "numpy", "h5py"} <= told["library_versions"].keys()


def test_info_as_text(caches: Path, ldata: Callable) -> None:
    text = ldata("info", "--cache", caches, "--size", 64).stdout
    assert "32 of 64 px: hem 12, all 20" in text
    assert "given folds  0 12, 1 12, 2 8" in text
    assert "1. canvas side_px=450" in text
    assert "2. resize method=area" in text
    assert "quarantined  0" in text


def test_info_of_several_caches_is_refused(caches: Path, ldata: Callable, error_of: Callable) -> None:
    result = ldata("info", "--cache", caches)
    assert "several caches" in error_of(result, 2)
    assert len(result.stderr.splitlines()) == 3


def test_info_of_a_cache_with_a_lost_shard_says_what_to_do(
    own_caches: Path, dir_of_size: Callable, ldata: Callable, error_of: Callable
) -> None:
    directory = dir_of_size(own_caches, 64)
    [shard] = directory.glob("shard-*.h5")
    shard.unlink()
    message = error_of(ldata("info", directory), 1)
    assert shard.name in message
    assert "building again" in message


def test_list_as_json(caches: Path, dir_of_size: Callable, ldata: Callable, json_of: Callable) -> None:
    told = json_of(ldata("list", "--cache", caches, "--json"))
    assert {entry["directory"] for entry in told} == {str(dir_of_size(caches, size_px)) for size_px in (64, 48)}
    assert {(entry["name"], entry["recipe"], entry["num_samples"]) for entry in told} == {("cells", "raw", 32)}
    assert {entry["size_px"] for entry in told} == {64, 48}


def test_list_as_text(caches: Path, dir_of_size: Callable, ldata: Callable) -> None:
    header, *rows = ldata("list", "--cache", caches).stdout.splitlines()
    assert header.split() == ["name", "px", "recipe", "images", "quarantined", "size", "codec", "directory"]
    assert len(rows) == 2
    assert any(row.split()[:5] == ["cells", "64", "raw", "32", "0"] for row in rows)


def test_list_of_nothing(scratch: Path, ldata: Callable, json_of: Callable) -> None:
    assert "ldata build" in ldata("list").stdout
    assert json_of(ldata("list", "--json")) == []
    assert list(scratch.iterdir()) == []


def test_list_passes_over_a_broken_manifest_with_a_note(
    own_caches: Path, dir_of_size: Callable, ldata: Callable, json_of: Callable
) -> None:
    (dir_of_size(own_caches, 48) / "manifest.json").write_text("{", encoding="utf-8")
    result = ldata("list", "--cache", own_caches, "--json")
    assert [entry["size_px"] for entry in json_of(result)] == [64]
    assert result.stderr.startswith("note: ")
    assert "48-" in result.stderr


def test_recipes_shows_every_preset(ldata: Callable, json_of: Callable) -> None:
    text = ldata("recipes").stdout
    told = json_of(ldata("recipes", "--json"))
    assert [recipe["name"] for recipe in told] == preset_names()
    assert {"raw", "crop", "report-a", "report-b", "lab-clahe"} <= set(preset_names())
    assert all(f"{recipe['name']}: {recipe['description']}" in text for recipe in told)


def test_recipe_of_the_first_report(ldata: Callable) -> None:
    lines = ldata("recipes", "report-a").stdout.splitlines()
    assert [line.strip() for line in lines[1:]] == [
        "1. canvas side_px=450",
        "2. clahe clip_limit=3.0 tiles=9",
        "3. unsharp sigma_px=3.0 strength=1.5",
        "4. center_crop side_px=270",
        "5. resize method=area",
    ]


def test_recipes_checks_a_file(scratch: Path, ldata: Callable, error_of: Callable) -> None:
    Path("mine.toml").write_text('[[step]]\nop = "canvas"\n[[step]]\nop = "resize"\n', encoding="utf-8")
    assert ldata("recipes", "mine.toml").stdout.splitlines()[1:] == [
        "  1. canvas side_px=450",
        "  2. resize method=area",
    ]
    Path("mine.toml").write_text('[[step]]\nop = "crop_to_cell"\nmargin = 1\n', encoding="utf-8")
    assert ldata("recipes", "mine.toml").stdout.splitlines()[1:] == [
        "  1. crop_to_cell margin=1.0 pad=border method=area",
    ]
    Path("mine.toml").write_text('[[step]]\nop = "blur"\n', encoding="utf-8")
    message = error_of(ldata("recipes", "mine.toml"), 2)
    assert "mine.toml, step 1" in message
    assert "blur" in message
    assert "clahe" in message


@pytest.mark.parametrize("name", ["nope", "nope.toml"])
def test_unknown_recipe(name: str, scratch: Path, ldata: Callable, error_of: Callable) -> None:
    assert name in error_of(ldata("recipes", name), 2)
