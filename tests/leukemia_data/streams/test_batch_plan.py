from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from leukemia_data.errors import UsageError
from leukemia_data.streams.batch import Batch, BatchPlan, balanced_weights

NUMBERS = np.arange(100, 137)


def order(plan: BatchPlan, epoch: int, first_step: int = 0) -> list[int]:
    return [number for rows in plan.batches(epoch, first_step) for number in rows.indices_B[rows.mask_B].tolist()]


@pytest.mark.parametrize("batch_size", [1, 5, 8, 37, 64, 5000])
@pytest.mark.parametrize("seed", [None, 0, 9])
def test_every_sample_comes_once_an_epoch(batch_size, seed):
    plan = BatchPlan(NUMBERS, batch_size=batch_size, seed=seed)
    assert sorted(order(plan, 3)) == NUMBERS.tolist()
    assert len(list(plan.batches(3))) == len(plan)


def test_without_a_seed_the_order_is_the_callers():
    numbers = np.array([9, 2, 25, 2])
    assert order(BatchPlan(numbers, batch_size=3), 7) == [9, 2, 25, 2]


def test_order_does_not_depend_on_the_batch_size():
    first = order(BatchPlan(NUMBERS, batch_size=4, seed=1), 2)
    assert order(BatchPlan(NUMBERS, batch_size=11, seed=1), 2) == first
    assert order(BatchPlan(NUMBERS, batch_size=4, seed=1), 3) != first


def test_order_of_many_samples_is_the_same_whichever_block_it_was_computed_in():
    numbers = np.arange(10_000)
    whole = order(BatchPlan(numbers, batch_size=10_000, seed=4), 1)
    assert order(BatchPlan(numbers, batch_size=7, seed=4), 1) == whole
    assert order(BatchPlan(numbers, batch_size=64, seed=4), 1, first_step=100) == whole[6400:]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("batch_size", [1, 8, 12, 40])
def test_all_ranks_together_take_the_batches_of_one(world_size, batch_size):
    alone = list(BatchPlan(NUMBERS, batch_size=batch_size, seed=5).batches(2))
    ranks = [
        list(BatchPlan(NUMBERS, batch_size=batch_size, seed=5, rank=rank, world_size=world_size).batches(2))
        for rank in range(world_size)
    ]
    for step, rows in enumerate(alone):
        shares = [batches[step] for batches in ranks]
        assert len({len(share.indices_B) for share in shares}) == 1
        together = np.concatenate([share.indices_B[share.mask_B] for share in shares])
        np.testing.assert_array_equal(together, rows.indices_B)
        padding = np.concatenate([share.indices_B[~share.mask_B] for share in shares])
        assert set(padding.tolist()) <= {rows.indices_B[-1]}
    assert {len(batches) for batches in ranks} == {len(alone)}


@pytest.mark.parametrize(("world_size", "micro_batches_per_rank"), [(1, 2), (1, 5), (2, 2), (3, 2)])
def test_micro_batches_of_all_ranks_in_a_row_are_the_batch(world_size, micro_batches_per_rank):
    alone = list(BatchPlan(NUMBERS, batch_size=8, seed=5).batches(2, 1))
    by_rank = [
        list(
            BatchPlan(
                NUMBERS,
                batch_size=8,
                seed=5,
                rank=rank,
                world_size=world_size,
                micro_batches_per_rank=micro_batches_per_rank,
            ).batches(2, 1)
        )
        for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        own = slice(step * micro_batches_per_rank, (step + 1) * micro_batches_per_rank)
        shares = [share for batches in by_rank for share in batches[own]]
        assert len({len(share.indices_B) for share in shares}) == 1
        counted = np.concatenate([share.indices_B[share.mask_B] for share in shares])
        assert counted.tolist() == whole.indices_B.tolist()


@pytest.mark.parametrize(("num", "steps", "served"), [(10, 2, 8), (8, 2, 8), (5, 1, 4), (3, 1, 3), (0, 0, 0)])
def test_drop_last_drops_a_part_but_never_everything(num, steps, served):
    plan = BatchPlan(np.arange(num), batch_size=4, seed=1, drop_last=True)
    assert len(plan) == len(list(plan.batches(0))) == steps
    assert len(order(plan, 0)) == served


def test_weights_choose_the_samples():
    weights = balanced_weights(np.array(["all"] * 30 + ["hem"] * 7))
    plan = BatchPlan(NUMBERS, batch_size=8, seed=2, weights_N=weights)
    rare = sum((np.array(order(plan, epoch)) >= 130).sum() for epoch in range(40))
    assert abs(rare / (40 * 37) - 0.5) < 0.02
    assert len(order(plan, 0)) == 37
    assert order(plan, 0) == order(BatchPlan(NUMBERS, batch_size=5, seed=2, weights_N=weights), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 5},
        {"batch_size": 37},
        {"world_size": 3},
        {"micro_batches_per_rank": 3},
        {"world_size": 2, "micro_batches_per_rank": 2, "batch_size": 10},
    ],
)
def test_occurrences_do_not_depend_on_how_an_epoch_is_cut(changes):
    weights = balanced_weights(np.array(["all"] * 30 + ["hem"] * 7))

    def drawn(first_step=0, **options):
        options = {"batch_size": 8, "world_size": 1, "seed": 2, "weights_N": weights, **options}
        ranks = [BatchPlan(NUMBERS, rank=rank, **options) for rank in range(options["world_size"])]
        rows = [rows for plan in ranks for rows in plan.batches(3, first_step)]
        assert all(each.occurrences_B.shape == each.indices_B.shape for each in rows)
        return sorted(
            pair
            for each in rows
            for pair in zip(each.indices_B[each.mask_B], each.occurrences_B[each.mask_B], strict=True)
        )

    whole = drawn()
    assert len(set(whole)) == len(whole) == 37
    assert len({number for number, _ in whole}) < 37
    assert drawn(**changes) == whole
    batch_size = {"batch_size": 8, **changes}["batch_size"]
    first_positions = drawn(**{**changes, "world_size": 1, "micro_batches_per_rank": 1})
    assert first_positions == whole
    rest = drawn(first_step=2, **changes)
    assert len(rest) == max(37 - 2 * batch_size, 0)
    assert set(rest) <= set(whole)


def test_without_weights_every_sample_occurs_once():
    for seed in (None, 2):
        for rows in BatchPlan(NUMBERS, batch_size=8, seed=seed, world_size=3).batches(0):
            assert (rows.occurrences_B == 0).all()


def test_balanced_weights_are_one_over_the_groups_size():
    assert balanced_weights(np.array([1, 0, 1, 1, 5])).tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3, 1])


def test_identity_differs_between_plans_but_not_between_ranks():
    plan = BatchPlan(NUMBERS, batch_size=8, seed=1)
    same = BatchPlan(NUMBERS.copy(), batch_size=8, seed=1, rank=1, world_size=2)
    assert plan.identity() == same.identity()
    others = [
        BatchPlan(NUMBERS, batch_size=8, seed=2),
        BatchPlan(NUMBERS, batch_size=8),
        BatchPlan(NUMBERS, batch_size=4, seed=1),
        BatchPlan(NUMBERS[::-1], batch_size=8, seed=1),
        BatchPlan(NUMBERS, batch_size=8, seed=1, drop_last=True),
        BatchPlan(NUMBERS, batch_size=8, seed=1, weights_N=np.ones(37)),
    ]
    assert all(other.identity() != plan.identity() for other in others)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"drop_last": "no"}, "drop_last must be True or False"),
        ({"world_size": 0}, "world_size must be at least 1"),
        ({"weights_N": ["1"] * 37}, "weights_N must be numbers"),
        ({"weights_N": np.ones(37, bool)}, "weights_N must be numbers"),
        ({"indices_N": [0.5]}, "indices_N must be whole numbers"),
        ({"indices_N": [-1]}, "got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"rank": 2, "world_size": 2}, "rank must be in 0 ... 1, got 2"),
        ({"rank": -1}, "rank must be in .* got -1"),
        ({"micro_batches_per_rank": 0}, "micro_batches_per_rank must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": None, "weights_N": np.ones(37)}, "give a seed"),
        ({"weights_N": np.ones(3)}, "one weight for each of the 37"),
        ({"weights_N": np.zeros(37)}, "not all 0"),
        ({"weights_N": np.full(37, np.nan)}, "finite"),
        ({"weights_N": np.r_[np.ones(36), -1]}, "not negative"),
    ],
)
def test_wrong_plans_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        BatchPlan(**{"indices_N": NUMBERS, "batch_size": 8, "seed": 1, **changes})


@pytest.mark.parametrize("groups", [np.zeros((2, 2)), np.array([1, "a", None], object), 3])
def test_groups_are_one_label_a_sample(groups):
    with pytest.raises(UsageError, match="groups_N must be one label or text for each sample"):
        balanced_weights(groups)


def test_a_batch_is_a_tuple_of_four_with_more_beside_them():
    """Loops unpack it, frameworks rebuild it from its parts, and loaders pickle it."""
    images, labels, indices = torch.zeros(3, 2, 2, 3, dtype=torch.uint8), torch.tensor([1, 0, 1]), torch.arange(3)
    occurrences = torch.tensor([0, 2, 1])
    batch = Batch(images, labels, indices, indices >= 0, occurrences, labels)
    found_images, found_labels, found_indices, mask = batch
    assert (found_images is images, found_labels is labels, found_indices is indices) == (True, True, True)
    assert mask.all()
    rebuilt = type(batch)(*batch)
    assert rebuilt.occurrences_B.tolist() == [0, 0, 0]
    assert rebuilt.host_labels_B.tolist() == [1, 0, 1]
    for same in (pickle.loads(pickle.dumps(batch)), copy.copy(batch), batch.moved(images, labels)):
        assert same.occurrences_B.tolist() == [0, 2, 1]
        assert len(same) == 4
