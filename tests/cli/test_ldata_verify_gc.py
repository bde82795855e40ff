"""``ldata verify`` and ``ldata gc``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest


@pytest.fixture
def directory(own_caches: Path, dir_of_size: Callable) -> Path:
    """A cache of 64 px that the test may damage."""
    return dir_of_size(own_caches, 64)


@pytest.fixture
def damaged(directory: Path) -> tuple[Path, str, str]:
    """The cache with one flipped bit in image 5; the shard's name and the image's id."""
    [shard] = load_manifest(directory).shards
    with (directory / shard.name).open("rb+") as file:
        file.seek(shard.images_offset_bytes + 5 * 64 * 64 * 3 + 100)
        value = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([value ^ 1]))
    return directory, shard.name, open_cache(directory).table.id_texts[5]


def test_sound_cache(caches: Path, ldata: Callable, json_of: Callable) -> None:
    result = ldata("verify", "--cache", caches, "--size", 64)
    assert result.exit_code == 0
    assert "32 images in 1 shards" in result.stdout
    told = json_of(ldata("verify", "--cache", caches, "--size", 64, "--json"))
    assert (told["num_samples"], told["num_shards"], told["damages"]) == (32, 1, [])


def test_flipped_bit_is_named_by_shard_and_image(
    damaged: tuple[Path, str, str], ldata: Callable, error_of: Callable
) -> None:
    directory, shard, record_id = damaged
    result = ldata("verify", directory)
    message = error_of(result, 1)
    assert str(directory) in message
    lines = result.stdout.splitlines()
    assert all(line.startswith(f"{shard}: ") for line in lines)
    assert any(line.endswith(f": {record_id}") for line in lines)
    assert result.stdout.count(".bmp") == 1


def test_a_quick_check_looks_at_all_but_the_pixels(
    damaged: tuple[Path, str, str], ldata: Callable, error_of: Callable
) -> None:
    directory, shard, _ = damaged
    result = ldata("verify", directory, "--quick")
    assert result.exit_code == 0
    assert "all there, their pixels not looked at" in result.stdout
    (directory / shard).unlink()
    result = ldata("verify", directory, "--quick")
    assert "is damaged (1 findings)" in error_of(result, 1)
    assert result.stdout == f"{shard}: is missing\n"


def test_a_quick_check_repairs_nothing(directory: Path, ldata: Callable, error_of: Callable) -> None:
    assert "--quick" in error_of(ldata("verify", directory, "--quick", "--repair"), 2)


def test_flipped_bit_as_json(damaged: tuple[Path, str, str], ldata: Callable, error_of: Callable) -> None:
    directory, shard, record_id = damaged
    result = ldata("verify", directory, "--json")
    error_of(result, 1)
    damages = json.loads(result.stdout)["damages"]
    assert {damage["file"] for damage in damages} == {shard}
    assert [damage["record_ids"] for damage in damages if damage["record_ids"]] == [[record_id]]


def test_the_advice_repairs_it(
    damaged: tuple[Path, str, str],
    cells: Path,
    ldata: Callable,
    error_of: Callable,
    files_below: Callable,
    caches: Path,
) -> None:
    directory, shard, _ = damaged
    assert f"`ldata verify {directory} --repair --source SOURCE`" in error_of(ldata("verify", directory), 1)
    result = ldata("verify", directory, "--repair", "--source", cells)
    assert result.exit_code == 0
    assert f"{shard}: repaired, byte for byte as it was written" in result.stdout
    assert "31 images were intact, 1 were made from the source again" in result.stdout
    assert "all as written" in result.stdout
    original = files_below(caches / "cells" / directory.name)
    assert {name: files_below(directory)[name] for name in original} == original


def test_without_the_source_a_repair_says_what_is_lost(
    damaged: tuple[Path, str, str], scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    directory, shard, record_id = damaged
    result = ldata("verify", directory, "--repair")
    message = error_of(result, 1)
    assert f"1 images lost, no source was given: {record_id} (subject 3)" in result.stdout
    assert "1 images are lost, of 1 subjects; 31 are intact" in message
    assert shard in message
    assert list(scratch.iterdir()) == [scratch / "own"]


def test_damage_beside_the_pixels_is_repaired_without_a_source(
    directory: Path, scratch: Path, ldata: Callable, json_of: Callable
) -> None:
    [shard] = directory.glob("shard-*.h5")
    content = shard.read_bytes()
    shard.write_bytes(b"?" + content[1:])
    told = json_of(ldata("verify", directory, "--repair", "--json"))
    assert (told["mended"], told["lost"], told["left"]["damages"]) == ([shard.name], [], [])
    assert shard.read_bytes() == content
    assert json_of(ldata("verify", directory, "--repair", "--json"))["mended"] == []


def test_the_source_of_a_repair_may_come_from_the_environment(
    damaged: tuple[Path, str, str], scratch: Path, cells: Path, ldata: Callable
) -> None:
    directory, _, _ = damaged
    assert ldata("verify", directory, "--repair", env={"LDATA_SOURCE": str(cells)}).exit_code == 0


def test_a_source_that_is_none_is_an_error_if_named_and_none_if_found(
    damaged: tuple[Path, str, str], scratch: Path, ldata: Callable, error_of: Callable
) -> None:
    directory, _, _ = damaged
    (scratch / "data").mkdir()
    assert "are lost" in error_of(ldata("verify", directory, "--repair"), 1)
    assert "data" in error_of(ldata("verify", directory, "--repair", "--source", "data"), 1)


@pytest.mark.parametrize("options", [("--source", "x"), ("--root", ".")])
def test_checking_alone_takes_no_source(
    caches: Path, options: tuple[str, ...], ldata: Callable, error_of: Callable
) -> None:
    assert "is for --repair" in error_of(ldata("verify", "--cache", caches, "--size", 64, *options), 2)


def test_missing_and_truncated_files(directory: Path, ldata: Callable, error_of: Callable) -> None:
    [shard] = directory.glob("shard-*.h5")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    result = ldata("verify", directory)
    error_of(result, 1)
    assert result.stdout.startswith(f"{shard.name}: ")
    shard.unlink()
    result = ldata("verify", directory)
    error_of(result, 1)
    assert f"{shard.name}: is missing" in result.stdout


def test_no_cache(scratch: Path, ldata: Callable, error_of: Callable) -> None:
    assert "ldata build" in error_of(ldata("verify"), 1)


# --- gc -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def littered(own_caches: Path, directory: Path) -> set[str]:
    """Put garbage and foreign files into the caches; return what gc may remove."""
    garbage = {
        directory / "shard-0123456789abcdef.h5": 1000,
        directory / "index-0123456789abcdef.h5": 10,
        directory / "shard.0123456789ab.partial": 20,
        directory / "receipts" / f"{'0' * 32}.json": 30,
    }
    foreign = [directory / "notes.txt", directory / "shard-mine.h5", own_caches / "cells" / "readme.md"]
    (directory / "receipts").mkdir()
    for path, size in garbage.items():
        path.write_bytes(bytes(size))
    for path in foreign:
        path.write_bytes(b"mine")
    return {str(path) for path in garbage}


def test_gc_removes_exactly_the_garbage(
    littered: set[str], own_caches: Path, ldata: Callable, json_of: Callable, files_below: Callable
) -> None:
    before = files_below(own_caches)
    told = json_of(ldata("gc", "--cache", own_caches, "--json"))
    assert set(told["files"]) == littered
    assert (told["num_bytes"], told["removed"], told["skipped"]) == (1060, True, [])
    gone = {Path(name).relative_to(own_caches).as_posix() for name in littered}
    assert files_below(own_caches) == {name: content for name, content in before.items() if name not in gone}
    assert ldata("verify", "--cache", own_caches, "--size", 64).exit_code == 0


def test_dry_run_removes_nothing(
    littered: set[str], own_caches: Path, ldata: Callable, files_below: Callable, json_of: Callable
) -> None:
    before = files_below(own_caches)
    text = ldata("gc", "--cache", own_caches, "--dry-run").stdout
    assert text.splitlines()[-1] == "4 files, would free 1.1 kB"
    assert json_of(ldata("gc", "--cache", own_caches, "--dry-run", "--json"))["removed"] is False
    assert files_below(own_caches) == before


def test_gc_where_there_is_nothing(scratch: Path, ldata: Callable) -> None:
    result = ldata("gc")
    assert result.exit_code == 0
    assert result.stdout == "0 files, freed 0 B\n"
    assert list(scratch.iterdir()) == []


def test_gc_keeps_away_from_a_cache_it_cannot_read(
    littered: set[str], own_caches: Path, directory: Path, ldata: Callable, files_below: Callable
) -> None:
    (directory / "manifest.json").write_text("{", encoding="utf-8")
    before = files_below(own_caches)
    result = ldata("gc", "--cache", own_caches)
    assert result.exit_code == 0
    assert "passed over: " in result.stderr
    assert files_below(own_caches) == before
