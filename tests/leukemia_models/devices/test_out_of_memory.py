from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from leukemia_data.errors import RunError
from leukemia_models.devices.precision import is_out_of_memory, wanted_memory


def error_of_torch() -> Exception:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    return raised.value


def error_of_numpy() -> Exception:
    with pytest.raises(MemoryError) as raised:
        np.empty(10**17, np.uint8)
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.95 GB, max allowed: 9.07 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_every_way_to_say_it_is_known(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_what_torch_and_numpy_raise_here_is_known() -> None:
    assert is_out_of_memory(error_of_torch())
    assert is_out_of_memory(error_of_numpy())
    assert wanted_memory(error_of_torch()) == "4000000000000000 bytes"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        RunError("rank 1 of 2 failed: CUDA out of memory"),
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_message_has_the_amount_if_the_error_has_it() -> None:
    assert wanted_memory(RuntimeError("CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0")) == "512.00 MiB"
    assert wanted_memory(MemoryError()) is None
