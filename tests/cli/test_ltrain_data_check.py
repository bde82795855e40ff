"""What a run is about to use is checked once, before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.ltrain.data_check import check_data, used_shards
from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split
from leukemia_models.runs.run_split import SplitCache


@pytest.fixture
def directory(own_caches: Path, dir_of_size: Callable) -> Path:
    return dir_of_size(own_caches, 64)


@pytest.fixture
def damaged(directory: Path) -> Path:
    """The shard with one flipped bit in its pixels."""
    [shard] = load_manifest(directory).shards
    path = directory / shard.name
    content = bytearray(path.read_bytes())
    content[shard.images_offset_bytes + 1000] ^= 1
    path.write_bytes(content)
    return path


def options(own_caches: Path, out: Path) -> list[object]:
    network = ("--model", "resnet18-narrow", "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    return ["--cache", own_caches, "--size", 64, *network, "--out", out]


def test_a_damaged_shard_stops_the_run_and_its_resumption(
    damaged: Path, own_caches: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    out = tmp_path / "run"
    message = error_of(ltrain(*options(own_caches, out)), 1)
    assert str(damaged) in message
    assert f"`ldata verify {damaged.parent} --repair --source SOURCE`" in message
    assert f"`ltrain --out {out} --resume`" in message
    assert not list(out.glob("*.safetensors"))
    assert "are damaged" in error_of(ltrain("--out", out, "--resume"), 1)


def test_a_mended_cache_passes_and_the_time_is_told(
    damaged: Path, cells: Path, ldata: Callable, capsys: pytest.CaptureFixture
) -> None:
    assert ldata("verify", damaged.parent, "--repair", "--source", cells).exit_code == 0
    check_data([_Run(damaged.parent)], _Request(), {}, _Alone())
    assert re.fullmatch(r"checked \d+ kB in \d+\.\d s\n", capsys.readouterr().err)


def test_a_cross_validation_is_checked_before_its_first_fold(
    damaged: Path, own_caches: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    out = tmp_path / "folds"
    message = error_of(ltrain("kfold", "--folds", 2, *options(own_caches, out)), 1)
    assert str(damaged) in message
    assert f"`ltrain kfold --out {out} --resume`" in message


class _Alone:
    is_first = True

    @staticmethod
    def run_on_all(action: Callable[[], None]) -> None:
        action()


class _Request:
    check = True
    is_kfold = False
    out = Path("run")


class _Run:
    plan_dir = Path("run")

    def __init__(self, directory: Path) -> None:
        cache = open_cache(directory)
        spec = parse_split("subject")
        self.data = SplitCache(cache, spec, assign_split(spec, cache.table, seed=0))


def test_other_processes_of_the_machine_and_no_check_read_nothing(damaged: Path) -> None:
    run, alone = _Run(damaged.parent), _Alone()
    check_data([run], _Request(), {"LOCAL_RANK": "1"}, alone)
    unasked = _Request()
    unasked.check = False
    check_data([run], unasked, {}, alone)
    check_data([], _Request(), {}, alone)
    with pytest.raises(Exception, match="are damaged"):
        check_data([run], _Request(), {"LOCAL_RANK": "0"}, alone)


def test_shards_of_all_parts_once_each(own_caches: Path, dir_of_size: Callable) -> None:
    runs = [_Run(dir_of_size(own_caches, size)) for size in (64, 48, 64)]
    found = used_shards(run.data for run in runs)
    assert found == {run.data.cache.directory: list(run.data.cache.manifest.shards) for run in runs}
