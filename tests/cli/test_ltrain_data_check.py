"""What a run is about to use is checked once, before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.console import NULL_CONSOLE, Console
from leukemia_data.errors import CacheError
from leukemia_data.splitting.split_spec import parse_split
from leukemia_data.splitting.splits import assign_split
from leukemia_models.runs.begin_runs import PreparedRun
from leukemia_models.runs.run_config import MachineOptions, RunConfig, TrainingProcess, load_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.runs.training_faults import check_data, used_shards

from ..leukemia_data.consoles import ListConsole


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


def test_a_repaired_cache_passes_and_the_time_is_printed(
    damaged: Path, cells: Path, ldata: Callable, run_config: RunConfig
) -> None:
    assert ldata("verify", damaged.parent, "--repair", "--source", cells).exit_code == 0
    console = ListConsole()
    check_data([run_of(damaged.parent, run_config)], Path("run"), alone(console=console))
    assert re.fullmatch(r"checked \d+ kB in \d+\.\d s", console.notes[-1])


def test_a_cross_validation_is_checked_before_its_first_fold(
    damaged: Path, own_caches: Path, tmp_path: Path, ltrain: Callable, error_of: Callable
) -> None:
    out = tmp_path / "folds"
    message = error_of(ltrain("kfold", "--folds", 2, *options(own_caches, out)), 1)
    assert str(damaged) in message
    assert f"`ltrain kfold --out {out} --resume`" in message


def alone(*, check: bool = True, is_first_here: bool = True, console: Console = NULL_CONSOLE) -> TrainingProcess:
    return TrainingProcess(
        options=MachineOptions(check=check), device=torch.device("cpu"), console=console, is_first_here=is_first_here
    )


@pytest.fixture(scope="module")
def run_config(finished_run: Path) -> RunConfig:
    return load_config(RunFolder(finished_run))


def run_of(directory: Path, config: RunConfig) -> PreparedRun:
    cache = open_cache(directory)
    spec = parse_split("subject")
    data = SplitCache(cache, spec, assign_split(spec, cache.table, seed=0))
    return PreparedRun(RunFolder(Path("run")), config, data)


def test_other_processes_of_the_machine_and_no_check_read_nothing(damaged: Path, run_config: RunConfig) -> None:
    run, root = run_of(damaged.parent, run_config), Path("run")
    check_data([run], root, alone(is_first_here=False))
    check_data([run], root, alone(check=False))
    check_data([], root, alone())
    with pytest.raises(CacheError, match=r"are damaged.* go on with `resume\('run'\)`"):
        check_data([run], root, alone())


def test_shards_of_all_parts_once_each(own_caches: Path, dir_of_size: Callable, run_config: RunConfig) -> None:
    splits = [run_of(dir_of_size(own_caches, 64), run_config).data for _ in range(2)]
    assert used_shards(splits) == list(splits[0].cache.manifest.shards)
