"""What other ranks than the first do with what it broadcasts; real machines are in test_ltrain_nodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leukemia_data.caches.opening import LocalCopiesChoice
from leukemia_data.errors import RunError, UsageError
from leukemia_data.splitting.split_spec import SplitCodes
from leukemia_models.devices.distributed import Ranks
from leukemia_models.runs.begin_runs import PreparedRun
from leukemia_models.runs.open_run import open_run_cache
from leukemia_models.runs.run_config import MachineOptions, TrainingProcess, load_config
from leukemia_models.runs.run_folder import RunFolder
from leukemia_models.runs.start_weights import split_of_run
from leukemia_models.runs.train_plan import on_all_ranks


@dataclass(frozen=True)
class SecondOfTwo(Ranks):
    """Rank 1, which receives what a first rank with the run in `first_root` broadcasts; `first_sees` its --out."""

    first_root: Path = field(default=Path())
    first_cache: str = ""
    first_sees: bool = False
    rank: int = 1
    world_size: int = 2

    def all_gather_numbers(self, *numbers: float, error: Exception | None = None) -> Tensor:
        if error is not None:
            raise error
        return torch.tensor([[float(self.first_sees)] * len(numbers), numbers])

    def broadcast_bytes(self, read: Callable[[], bytes]) -> bytes:
        return self._codes().tobytes()

    def broadcast_text(self, text: str) -> str:
        config = load_config(RunFolder(self.first_root)).to_dict()
        config["cache_dir"] = self.first_cache or config["cache_dir"]
        return json.dumps([{"root": "/else/where", "config": config, "num_samples": len(self._codes())}])

    def _codes(self) -> SplitCodes:
        folder = RunFolder(self.first_root)
        return split_of_run(
            folder, load_config(folder), open_run_cache(load_config(folder), None, LocalCopiesChoice())
        ).codes


def open_received(ranks: Ranks, *, cache: Path | None = None, out: Path | None = None) -> list[PreparedRun]:
    def prepare() -> list[PreparedRun]:
        raise AssertionError("only the first rank prepares")

    process = TrainingProcess(options=MachineOptions(cache=cache), device=torch.device("cpu"), ranks=ranks)
    return on_all_ranks(prepare, process, out)


def test_a_rank_opens_its_own_copy_without_the_folder_of_the_run(finished_run: Path, own_caches: Path) -> None:
    [run] = open_received(SecondOfTwo(first_root=finished_run), cache=own_caches)
    assert own_caches in run.data.cache.directory.parents
    expected = load_config(RunFolder(finished_run))
    assert run.config == expected
    split = split_of_run(RunFolder(finished_run), expected, run.data.cache)
    assert run.data.codes.tolist() == split.codes.tolist()
    [same] = open_received(SecondOfTwo(first_root=finished_run))
    assert str(same.data.cache.directory.resolve()) == expected.cache_dir


def test_a_copy_of_other_images_and_a_missing_one_are_refused(
    finished_run: Path, tmp_path: Path, cells: Path, ldata: Callable
) -> None:
    fewer = Path(shutil.copytree(cells, tmp_path / "cells"))
    next(fewer.rglob("UID_1_1_1_all.bmp")).unlink()
    ldata("build", fewer, "--size", 64, "--recipe", "raw", "--cache", tmp_path / "fewer")
    with pytest.raises(RunError, match="holds other images than the cache of rank 0"):
        open_received(SecondOfTwo(first_root=finished_run), cache=tmp_path / "fewer")
    told = SecondOfTwo(first_root=finished_run, first_cache="/on/rank/0")
    with pytest.raises(RunError, match=r"no cache at /on/rank/0 on this node: .* --cache or \$LTRAIN_CACHE"):
        open_received(told)


def test_every_rank_stamps_what_the_start_has_seen(finished_run: Path, tmp_path: Path) -> None:
    told = Path(shutil.copytree(finished_run, tmp_path / "told"))
    config = json.loads((told / "run.json").read_text(encoding="utf-8"))
    config["seen_before"] = {**config["seen_before"], "images": 3}
    (told / "run.json").write_text(json.dumps(config), encoding="utf-8")
    [run] = open_received(SecondOfTwo(first_root=told))
    assert "3 held-out images seen by the start weights" in run.data.leaks.stamp


def test_a_run_that_the_first_rank_does_not_see_is_not_begun_anew(finished_run: Path) -> None:
    with pytest.raises(UsageError, match=r"rank 1 finds a run in --out .* rank 0 on its node does not"):
        open_received(SecondOfTwo(first_root=finished_run), out=finished_run)
    assert open_received(SecondOfTwo(first_root=finished_run, first_sees=True), out=finished_run)
