"""Order of samples and cut into shards, which existing caches depend on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
import xxhash

from leukemia_data.building.planned_tasks import default_capacity, sample_order, shard_bounds
from leukemia_data.records.fingerprint import lines_digest


def ids_by_shard(ids: Sequence[str], capacity: int) -> list[list[str]]:
    hashes = np.array(
        [xxhash.xxh3_64_intdigest(record_id.encode("utf-8", "surrogateescape")) for record_id in ids], np.uint64
    )
    order = sample_order(hashes, ids.__getitem__)
    bounds = shard_bounds(hashes[order], capacity).tolist()
    return [[ids[n] for n in order[first:end].tolist()] for first, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize("num", [0, 1, 8, 9, 500])
def test_every_record_is_in_one_shard_of_at_most_capacity(num):
    ids = [f"all/{n}.bmp" for n in range(num)]
    shards = ids_by_shard(ids, 8)
    assert sorted(chain(*shards)) == sorted(ids)
    assert all(1 <= len(shard) <= 8 for shard in shards)


def test_samples_are_ordered_by_the_hash_of_their_ids():
    shards = ids_by_shard([*map(str, range(300))], 16)
    hashes = [xxhash.xxh3_64_intdigest(record_id.encode("utf-8", "surrogateescape")) for record_id in chain(*shards)]
    assert hashes == sorted(hashes)


def test_shards_do_not_depend_on_the_order_of_ids():
    ids = [*map(str, range(300))]
    shuffled = random.Random(5).sample(ids, len(ids))
    assert ids_by_shard(shuffled, 16) == ids_by_shard(ids, 16)


@pytest.mark.parametrize("number", range(300, 330))
def test_one_more_record_changes_one_shard(number):
    before = {tuple(shard) for shard in ids_by_shard([*map(str, range(300))], 16)}
    after = {tuple(shard) for shard in ids_by_shard([*map(str, range(300)), str(number)], 16)}
    assert len(before - after) <= 1
    assert len(after - before) <= 2


def test_capacity_of_one_and_ids_with_equal_beginnings():
    assert len(ids_by_shard(["a", "aa", "aaa"], 1)) == 3


def odd_ids(count: int) -> list[str]:
    """Ids with quotes, letters of several bytes and bytes that are no UTF-8."""
    chosen = random.Random(11)
    letters = "ab'\"\\ü\u20ac!/ \udcff"
    ids = {"".join(chosen.choices(letters, k=chosen.randint(1, 9))) for _ in range(count)}
    return sorted(ids)


@pytest.mark.parametrize(
    ("count", "capacity", "digest"),
    [
        (1, 128, "3dc99182607cf4a264d017d33ebb2a03"),
        (700, 1, "a4b510cddc241b842151a89b11533628"),
        (700, 7, "edf7adc781760e7e15acb7c5d1143f4d"),
        (3000, 128, "a52f86b3339a2ed7508220898eeadc39"),
    ],
)
def test_the_cut_is_that_of_the_first_releases(count, capacity, digest):
    shards = ids_by_shard(odd_ids(count), capacity)
    assert lines_digest(line for shard in shards for line in ["-", *shard]) == digest


def test_equal_hashes_are_ordered_by_id_and_stay_together():
    ids, hashes = ["d", "c", "b", "a", "e"], np.array([7, 9, 7, 7, 1], np.uint64)
    order = sample_order(hashes, ids.__getitem__)
    assert [ids[n] for n in order.tolist()] == ["e", "a", "b", "d", "c"]
    assert shard_bounds(hashes[order], 1).tolist() == [0, 1, 4, 5]


def test_hashes_at_both_ends_of_their_range():
    hashes = np.array([0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], np.uint64)
    assert shard_bounds(hashes, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert shard_bounds(hashes, 3).tolist() == [0, 3, 5]


def test_a_cache_has_few_enough_files_to_map_them_all():
    # Worst case of a trie: nearly two shards for as many samples as fit into one.
    for num_samples in [10**n for n in range(8)] + [1 << 20, (1 << 20) + 1, 1 << 25]:
        assert 2 * num_samples / default_capacity(num_samples) <= 16_384


def test_the_default_capacity_never_falls_as_images_are_added():
    capacities = [default_capacity(1 << bits) for bits in range(40)]
    assert capacities == sorted(capacities)
    assert capacities[20] == 128 < capacities[21] == 256
