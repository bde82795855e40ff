"""Checks before a run begins; sizes of micro-batches are computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from leukemia_data.caches.cache import open_cache
from leukemia_data.errors import UsageError
from leukemia_data.splitting.split_spec import SplitSpec
from leukemia_data.streams import residency
from leukemia_models.networks.registry import build_model
from leukemia_models.runs.preflight import require_memory, require_micro_batches, valid_residency
from leukemia_models.runs.run_config import MachineOptions, TrainingProcess
from leukemia_models.runs.run_split import SplitCache
from leukemia_models.training.checkpoint_file import checkpoint_room
from leukemia_models.training.run_state import TrainSettings

from ...leukemia_data.helpers import build, cache_dir, make_source

SIZE_PX = 16
IMAGE_BYTES = SIZE_PX * SIZE_PX * 3
NUM_TRAIN, NUM_VALID = 6, 2
CUDA, MPS = torch.device("cuda", 0), torch.device("mps")
NETWORK, SETTINGS = "resnet18-narrow", TrainSettings(epochs=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SplitCache:
    """Six training images and two to validate."""
    root = tmp_path_factory.mktemp("preflight")
    build(make_source(root / "source", NUM_TRAIN + NUM_VALID), root / "cache", sizes_px=(SIZE_PX,))
    codes = np.array([0] * NUM_TRAIN + [1] * NUM_VALID, np.int8)
    return SplitCache(open_cache(cache_dir(root / "cache", SIZE_PX)), SplitSpec("given"), codes)


@pytest.fixture
def device_has(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free memory of a CUDA device, which is not here."""

    def free(num_images: int) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (num_images * IMAGE_BYTES, 10**12))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)

    return free


def process_on(device: torch.device, wanted: str) -> TrainingProcess:
    return TrainingProcess(options=MachineOptions(residency=wanted), device=device)


@pytest.mark.parametrize(("num_free", "wanted"), [(20, "auto"), (19, "mapped")])
def test_validation_images_go_to_a_device_only_beside_the_training_images(
    data: SplitCache, device_has: Callable[[int], None], num_free: int, wanted: str
) -> None:
    """40 % of 20 images are the 8 of both parts; 40 % of 19 would hold each part alone."""
    device_has(num_free)
    assert valid_residency(data, process_on(CUDA, "auto")) == wanted
    assert valid_residency(data, process_on(CUDA, "ram")) == "ram"
    assert valid_residency(data, process_on(torch.device("cpu"), "auto")) == "auto"


def test_both_parts_must_fit_on_the_device(data: SplitCache, device_has: Callable[[int], None]) -> None:
    process = process_on(CUDA, "device")
    device_has(NUM_TRAIN + NUM_VALID)
    require_memory(data, NETWORK, SETTINGS, process)
    device_has(NUM_TRAIN + NUM_VALID - 1)
    with pytest.raises(UsageError, match="of free memory on the device"):
        require_memory(data, NETWORK, SETTINGS, process)


def test_the_limit_of_one_tensor_holds_for_each_part(data: SplitCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10**9)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 0)
    monkeypatch.setattr(residency, "_MAX_MPS_BYTES", NUM_TRAIN * IMAGE_BYTES)
    require_memory(data, NETWORK, SETTINGS, process_on(MPS, "device"))
    monkeypatch.setattr(residency, "_MAX_MPS_BYTES", NUM_TRAIN * IMAGE_BYTES - 1)
    with pytest.raises(UsageError, match="that one tensor can hold"):
        require_memory(data, NETWORK, SETTINGS, process_on(MPS, "device"))


def test_pixels_in_memory_leave_room_for_the_copies_of_checkpoints(
    data: SplitCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `last` and of `best`; pixels get four fifths of what is left."""
    room = checkpoint_room(build_model(NETWORK, 2), SETTINGS)
    copies, pixels = room.resumable_bytes + room.evaluation_bytes, (NUM_TRAIN + NUM_VALID) * IMAGE_BYTES
    process = process_on(torch.device("cpu"), "ram")
    monkeypatch.setattr(residency, "free_ram_bytes", lambda: copies + pixels * 5 // 4)
    require_memory(data, NETWORK, SETTINGS, process)
    monkeypatch.setattr(residency, "free_ram_bytes", lambda: copies + pixels * 5 // 4 - 2)
    with pytest.raises(UsageError, match="of this machine's free memory"):
        require_memory(data, NETWORK, SETTINGS, process)


@pytest.mark.parametrize(
    ("batch_size", "num_train", "num_ranks", "accumulate", "sync", "fewest"),
    [
        (8, 100, 1, 4, True, None),
        (8, 100, 1, 5, True, 0),  # 2 2 2 2 0
        (10, 100, 4, 1, True, None),  # seen together
        (10, 100, 4, 1, False, 1),  # 3 3 3 1
        (10, 100, 2, 2, True, 1),
        (9, 100, 3, 1, False, None),
        (9, 5, 3, 1, False, 1),  # the only batch holds 5: 2 2 1
        (2, 100, 1, 1, False, None),
    ],
)
def test_each_micro_batch_must_have_two_images_where_batchnorm_sees_it_alone(
    batch_size: int, num_train: int, num_ranks: int, accumulate: int, sync: bool, fewest: int | None
) -> None:
    settings = TrainSettings(epochs=1, accumulate=accumulate, sync_batchnorm=sync)
    if fewest is None:
        require_micro_batches(batch_size, num_train, settings, num_ranks)
        return
    with pytest.raises(UsageError, match=f"leave {fewest} for the last one"):
        require_micro_batches(batch_size, num_train, settings, num_ranks)
