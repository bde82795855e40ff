from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from leukemia_data.caches.cache import open_cache
from leukemia_data.caches.manifest import load_manifest
from leukemia_data.errors import UsageError
from leukemia_data.streams.dataset import CachedCells, Sample
from leukemia_data.streams.loader import BatchStream

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


# Python warns of forking a process with threads; the dataset holds nothing that could break.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core
@pytest.mark.parametrize("method", [None, *METHODS])
def test_data_loader_gives_what_h5py_reads(dataset, stored, method):
    dataset[0]
    # A worker that does not fork loads torch.
    num_workers = {None: 0, "fork": 2}.get(method, 1)
    workers = {"num_workers": num_workers, "multiprocessing_context": method}
    images, labels, ids = epoch(DataLoader(dataset, batch_size=3, **workers))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), stored["images"][NUMBERS])
    assert labels == stored["labels"][NUMBERS].tolist()
    assert ids == [stored["ids"][number].decode() for number in NUMBERS]


def test_no_samples(directory):
    assert len(CachedCells(open_cache(directory), np.empty(0, np.int64))) == 0


# --- what chooses samples -------------------------------------------------------------------------------------

CHOICES = st.lists(st.integers(-2, NUM + 1), max_size=8) | st.lists(st.booleans(), min_size=NUM - 1, max_size=NUM)
FORMS = {
    "list": list,
    "array": np.array,
    "series": lambda values: pd.Series(values, index=range(len(values))[::-1], dtype=None if values else "int64"),
    "tensor": torch.tensor,
    "floats": lambda values: np.array(values, np.float64),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(values=CHOICES, form=st.sampled_from(sorted(FORMS)))
def test_pixels_labels_and_ids_of_any_choice_belong_together_or_it_is_refused(directory, stored, values, form):
    cache, chosen = open_cache(directory), FORMS[form](values)
    try:
        expected = np.arange(NUM)[np.array(values, None if values else np.int64)]
        is_right = (form != "floats" or not values) and not any(value < 0 for value in values)
    except IndexError:
        is_right = False
    if not is_right:
        for refuse in (lambda: CachedCells(cache, chosen), lambda: BatchStream(cache, chosen, batch_size=3)):
            with pytest.raises(UsageError, match="numbers"):
                refuse()
        with pytest.raises(UsageError, match="indices_B must be"):
            cache.reader.gather(chosen)
        with pytest.raises(UsageError, match="rows must be"):
            cache.table.take(chosen)
        return
    cells = CachedCells(cache, chosen)
    assert cells.record_ids == cache.table.take(chosen).id_texts
    assert np.array_equal(cache.reader.gather(chosen), stored["images"][expected])
    samples = [*cells.__getitems__(range(len(cells))), *cells]
    for number, sample in zip([*expected, *expected], samples, strict=True):
        assert np.array_equal(sample.image_CHW.numpy(), stored["images"][number].transpose(2, 0, 1))
        assert (sample.label, sample.record_id) == (stored["labels"][number], stored["ids"][number].decode())
    batches = list(BatchStream(cache, chosen, batch_size=3))
    assert [number for batch in batches for number in batch.indices_B.tolist()] == expected.tolist()
    for batch in batches:
        assert np.array_equal(batch.images_BHWC.numpy(), stored["images"][batch.indices_B.numpy()])
        assert batch.labels_B.tolist() == stored["labels"][batch.indices_B.numpy()].tolist()


def test_numbers_that_the_caller_changes_later_do_not_count(directory, stored):
    numbers = np.array([4, 9])
    cache = open_cache(directory)
    cells, stream = CachedCells(cache, numbers), BatchStream(cache, numbers, batch_size=2, residency="ram")
    numbers[:] = 0
    assert np.array_equal(cells[0].image_CHW.numpy(), stored["images"][4].transpose(2, 0, 1))
    (batch,) = stream
    assert np.array_equal(batch.images_BHWC.numpy(), stored["images"][[4, 9]])


@pytest.mark.parametrize("wrong", [1.0, "0", slice(0, 2), None])
def test_positions_are_whole_numbers(dataset, wrong):
    with pytest.raises(TypeError):
        dataset[wrong]


@pytest.mark.parametrize("make", [CachedCells, lambda cache, numbers: BatchStream(cache, numbers, batch_size=2)])
def test_a_folder_is_no_opened_cache(directory, make):
    with pytest.raises(UsageError, match="cache must be an opened cache"):
        make(directory, [0])
