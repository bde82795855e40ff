"""What a network costs: parameters, multiply-adds of one image, and the sizes its stages work at.

Counted on torch's "meta" device, where tensors have a shape and no values: nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leukemia_data.errors import UsageError
from leukemia_models.inference.predict import evaluating
from leukemia_models.networks.registry import build_model, count_parameters

STAGE_NAMES = ("layer1", "layer2", "layer3", "layer4")
MIN_SIZE_PX = 32
MAX_SIZE_PX = 4096
_FLOPS_PER_MULTIPLY_ADD = 2
_META = torch.device("meta")


class ModelCost(NamedTuple):
    """Cost of a network for square images of one size.

    Attributes
    ----------
    size_px
        Side of the images.
    parameters
        Trainable numbers.
    multiply_adds
        Of convolutions and linear layers for one image; BatchNorm, ReLU and pooling are left out, as usual.
    stage_sizes_px
        Side of what each of the four stages puts out.
    """

    size_px: int
    parameters: int
    multiply_adds: int
    stage_sizes_px: tuple[int, ...]


def model_cost(name: str, size_px: int, num_classes: int = 2) -> ModelCost:
    """Count the cost of one of :data:`~leukemia_models.networks.registry.MODEL_NAMES`.

    Raises
    ------
    UsageError
        If the name is unknown, or the size not within 32 to 4096 px.
    """
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise UsageError(f"the size must be {MIN_SIZE_PX} to {MAX_SIZE_PX} px, got {size_px}")
    with _META:
        model = build_model(name, num_classes)
    image = torch.empty(1, 3, size_px, size_px, device=_META)
    with _noted_stage_sizes(model) as sizes_px:
        multiply_adds = count_multiply_adds(model, image)
    return ModelCost(size_px, count_parameters(model), multiply_adds, tuple(sizes_px))


def count_multiply_adds(model: nn.Module, images_BCHW: Tensor) -> int:
    """Return the multiply-adds of convolutions and linear layers for a batch; model and batch on one device."""
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(images_BCHW)
    return int(counter.get_total_flops()) // _FLOPS_PER_MULTIPLY_ADD


@contextmanager
def _noted_stage_sizes(model: nn.Module) -> Iterator[list[int]]:
    """Fill a list with the side of what each stage puts out, while `model` runs in the block."""
    sizes_px: list[int] = []

    def note_size(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes_px.append(output.shape[-1])

    handles = [model.get_submodule(name).register_forward_hook(note_size) for name in STAGE_NAMES]
    try:
        yield sizes_px
    finally:
        for handle in handles:
            handle.remove()
