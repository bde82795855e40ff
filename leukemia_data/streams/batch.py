"""One step's samples, and how they come to the device that the network runs on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from leukemia_data.errors import UsageError


class Batch(NamedTuple):
    """What one step consumes.

    Attributes
    ----------
    images_BHWC : Tensor of shape (B, S, S, 3), uint8, RGB, on the stream's device
    labels_B : Tensor of shape (B,), int64, -1 where unknown, on the stream's device
    indices_B : Tensor of shape (B,), int64, on the CPU
        Sample numbers in the cache.
    mask_B : Tensor of shape (B,), bool, on the CPU
        False for rows that only fill up a rank's share: no result may count them.
    """

    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor
    mask_B: Tensor


def as_device(device: torch.device | str) -> torch.device:
    """Return a device by its name, such as ``cuda:1``, or as it is.

    Raises
    ------
    UsageError
        If there is no such kind of device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"device must be a torch.device or its name, got {device!r}") from error


def move_batches(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """Bring images and labels to a device.

    On CUDA the copy of the next batch runs, beside the computation, while this one is in use: from pinned memory, on a
    stream of its own, which the consumer's stream waits for. On the CPU nothing is copied.

    Parameters
    ----------
    batches
        On the CPU; in pinned memory for CUDA. Closed when this iterator is.
    device
        Where the network runs.
    """
    if device.type == "cpu":
        return batches
    if device.type == "cuda":
        return _copy_ahead(batches, device)
    return _move_each(batches, device)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor from the host to a device; `values` may be dropped or overwritten as far as torch allows it.

    Only on CUDA the host does not wait: there, torch has read unpinned memory by then, and keeps pinned memory until it
    has. On MPS the copy would read the memory later, whoever owns it then.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def _move_each(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    with closing(batches):
        for batch in batches:
            yield _moved(batch, device)


def _moved(batch: Batch, device: torch.device) -> Batch:
    return batch._replace(
        images_BHWC=to_device(batch.images_BHWC, device),
        labels_B=to_device(batch.labels_B, device),
    )


def _copy_ahead(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[Batch, torch.cuda.Event] | None = None
    with closing(batches):
        for batch in batches:
            with torch.cuda.stream(copying):
                # torch keeps the pinned memory until the copy is done, even if the batch is dropped at once.
                moved = _moved(batch, device)
            following = (moved, copying.record_event())
            if ahead is not None:
                yield _handed_over(*ahead, device)
            ahead = following
    if ahead is not None:
        yield _handed_over(*ahead, device)


def _handed_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the consumer's stream wait for the copy, and the allocator for the consumer's stream."""
    consuming = torch.cuda.current_stream(device)
    consuming.wait_event(copied)
    batch.images_BHWC.record_stream(consuming)
    batch.labels_B.record_stream(consuming)
    return batch
