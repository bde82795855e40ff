from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from leukemia_data.streams.batch import BufferPool


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 1), [3, 7]])
def test_a_tensor_has_the_shape_and_type_asked_for(shape, dtype):
    tensor = BufferPool().take(shape, dtype)
    assert tensor.shape == torch.Size(shape)
    assert tensor.dtype == dtype
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    assert not tensor.requires_grad
    assert tensor.data_ptr() % 64 == 0
    tensor.fill_(1)
    assert (tensor == 1).all()


def test_no_elements_need_no_buffer():
    pool = BufferPool()
    assert pool.take((0, 3), torch.float32).shape == (0, 3)
    assert pool.num_idle == 0


def test_memory_is_used_again_when_the_tensor_is_gone():
    pool = BufferPool()
    tensor = pool.take((100, 3), torch.float32)
    address = tensor.data_ptr()
    del tensor
    assert pool.num_idle == 1
    assert pool.take((300,), torch.float32).data_ptr() == address


def test_two_tensors_never_share_memory():
    pool = BufferPool()
    first, second = pool.take((64,), torch.uint8), pool.take((64,), torch.uint8)
    first.fill_(1)
    second.fill_(2)
    assert (first == 1).all()


@pytest.mark.parametrize(
    "hold",
    [
        lambda tensor: tensor[3:5],
        lambda tensor: tensor.permute(1, 0),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.numpy()[2:, 0],
        lambda tensor: tensor.detach(),
        lambda tensor: memoryview(tensor.numpy()),
        lambda tensor: tensor.untyped_storage(),
    ],
    ids=["slice", "permutation", "array", "slice of array", "detached", "memoryview", "storage"],
)
def test_memory_stays_taken_while_anything_refers_to_it(hold):
    pool = BufferPool()
    tensor = pool.take((10, 4), torch.float32)
    held = hold(tensor)
    del tensor
    assert pool.num_idle == 0
    del held
    assert pool.num_idle == 1


def test_what_autograd_keeps_for_the_backward_pass_stays_taken():
    pool = BufferPool()
    layer = nn.Linear(4, 2)
    loss = layer(pool.take((8, 4), torch.float32).fill_(3)).sum()
    pool.take((8, 4), torch.float32).fill_(-100)
    loss.backward()
    assert (layer.weight.grad == 24).all()
    del loss
    assert pool.num_idle == 2


def test_a_larger_idle_buffer_serves_a_smaller_tensor_but_not_the_reverse():
    pool = BufferPool()
    small, large = pool.take((10,), torch.uint8), pool.take((1000,), torch.uint8)
    addresses = small.data_ptr(), large.data_ptr()
    del small, large
    assert pool.take((500,), torch.uint8).data_ptr() == addresses[1]
    assert pool.num_idle == 2


def test_no_more_than_max_idle_buffers_are_kept():
    pool = BufferPool(max_idle=2)
    tensors = [pool.take((100,), torch.uint8) for _ in range(5)]
    tensors.clear()
    assert pool.num_idle == 2


def test_tensors_outlive_their_pool():
    tensor = BufferPool().take((1000,), torch.float32).fill_(5)
    assert (tensor == 5).all()


def test_threads_never_see_each_others_values():
    pool = BufferPool(max_idle=3)
    failures: list[int] = []

    def work(mark: int) -> None:
        rng = np.random.default_rng(mark)
        held = []
        for _ in range(400):
            held.append(pool.take((int(rng.integers(1, 2000)),), torch.int64).fill_(mark))
            if len(held) > 3:
                failures.extend(mark for tensor in held if not (tensor == mark).all())
                del held[int(rng.integers(4))]

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert 0 < pool.num_idle <= 3
