from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.streams.dataset import CachedCells, Sample

from ..helpers import build, cache_dir, make_source

SIZE, NUM = 16, 20
NUMBERS = np.array([7, 0, 19, 3, 3, 12, 5])


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    build(make_source(root / "source", NUM), root / "cache", sizes_px=(SIZE,))
    return cache_dir(root / "cache", SIZE)


@pytest.fixture(scope="module")
def stored(directory) -> dict[str, np.ndarray]:
    """Columns of all shards in the manifest's order, by h5py alone."""
    columns: dict[str, list[np.ndarray]] = {"images": [], "labels": [], "ids": []}
    for shard in load_manifest(directory).shards:
        with h5py.File(directory / shard.name, "r") as file:
            for name, parts in columns.items():
                parts.append(file[name][()])
    return {name: np.concatenate(parts) for name, parts in columns.items()}


@pytest.fixture
def dataset(directory) -> CachedCells:
    return CachedCells(open_cache(directory), NUMBERS)


def test_samples_are_what_h5py_reads(dataset, stored):
    assert len(dataset) == len(NUMBERS)
    for position, number in enumerate(NUMBERS):
        image, label, record_id = dataset[position]
        assert image.dtype == torch.uint8
        assert image.shape == (3, SIZE, SIZE)
        assert np.array_equal(image.numpy(), stored["images"][number].transpose(2, 0, 1))
        assert (label, record_id) == (stored["labels"][number], stored["ids"][number].decode())
    assert dataset.record_ids == [stored["ids"][number].decode() for number in NUMBERS]
    assert dataset.labels.tolist() == stored["labels"][NUMBERS].tolist()


def same(one: Sample, two: Sample) -> bool:
    return torch.equal(one.image_CHW, two.image_CHW) and one[1:] == two[1:]


def test_several_at_once_are_the_same_samples(dataset):
    positions = [4, 0, 0, 6]
    for sample, position in zip(dataset.__getitems__(positions), positions, strict=True):
        assert same(sample, dataset[position])
    assert dataset.__getitems__([]) == []


def test_samples_may_be_changed_without_changing_the_cache(dataset):
    before = dataset[0].image_CHW.clone()
    dataset[0].image_CHW.zero_()
    for sample in dataset.__getitems__([0]):
        sample.image_CHW.zero_()
    assert torch.equal(dataset[0].image_CHW, before)


def test_iteration_ends(dataset):
    assert len(list(dataset)) == len(NUMBERS)


def test_pickle_round_trip_is_small(dataset):
    dataset.__getitems__(range(len(NUMBERS)))
    data = pickle.dumps(dataset)
    assert len(data) < 6000
    assert all(same(one, two) for one, two in zip(pickle.loads(data), dataset, strict=True))


def epoch(loader: DataLoader) -> tuple[torch.Tensor, list[int], list[str]]:
    images, labels, ids = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels).tolist(), [record_id for batch in ids for record_id in batch]


METHODS = [method for method in ("spawn", "forkserver", "fork") if method in multiprocessing.get_all_start_methods()]


# Forking a process with threads is what Python warns of; the dataset holds nothing that could break by it.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core
@pytest.mark.parametrize("method", [None, *METHODS])
def test_data_loader_gives_what_h5py_reads(dataset, stored, method):
    dataset[0]
    workers = {"num_workers": 0 if method is None else 2, "multiprocessing_context": method}
    images, labels, ids = epoch(DataLoader(dataset, batch_size=3, **workers))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), stored["images"][NUMBERS])
    assert labels == stored["labels"][NUMBERS].tolist()
    assert ids == [stored["ids"][number].decode() for number in NUMBERS]


def test_no_samples(directory):
    assert len(CachedCells(open_cache(directory), np.empty(0, np.int64))) == 0
