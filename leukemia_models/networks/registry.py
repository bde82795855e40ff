"""Networks by name, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.predict import evaluating
from leukemia_models.networks.resnet import (
    STANDARD_CHANNELS,
    BasicBlock,
    Block,
    Bottleneck,
    ConcatBlock,
    LinearBottleneck,
    ResNet,
)


class ResNetDesign(NamedTuple):
    """What tells one ResNet from another (He et al. 2015, table 1), and who uses it.

    Attributes
    ----------
    reports
        Which of the two reports has it: ``A``, ``B``, both or none.
    description
        What is special about it.
    has_maxpool
        Whether the stem ends in a max-pool.
    channels
        Of the stem and the first stage.
    """

    block: Block
    blocks_per_stage: tuple[int, int, int, int]
    reports: tuple[str, ...]
    description: str
    has_maxpool: bool = True
    channels: int = STANDARD_CHANNELS


_BLOCKS_18 = (2, 2, 2, 2)
_BLOCKS_50 = (3, 4, 6, 3)
_BLOCKS_152 = (3, 8, 36, 3)
_NARROW = "a quarter of the channels: for trials on a CPU"
_BASIC = "blocks of two 3x3 convolutions"
_BOTTLENECK = "bottleneck blocks"
_NO_MAXPOOL = "as its listing prints it: no max-pool"
_LINEAR = "as its code has it: no ReLU between a branch's convolutions, one at its end"
_CONCAT = "branch and shortcut concatenated, then a 3x3 convolution"

DESIGNS: Mapping[str, ResNetDesign] = MappingProxyType(
    {
        "resnet18": ResNetDesign(BasicBlock, _BLOCKS_18, ("A", "B"), _BASIC),
        "resnet18-narrow": ResNetDesign(BasicBlock, _BLOCKS_18, (), _NARROW, channels=STANDARD_CHANNELS // 4),
        "resnet34": ResNetDesign(BasicBlock, (3, 4, 6, 3), (), _BASIC),
        "resnet50": ResNetDesign(Bottleneck, _BLOCKS_50, ("A", "B"), _BOTTLENECK),
        "resnet101": ResNetDesign(Bottleneck, (3, 4, 23, 3), (), _BOTTLENECK),
        "resnet152": ResNetDesign(Bottleneck, _BLOCKS_152, ("A", "B"), _BOTTLENECK),
        "resnet18-no-maxpool": ResNetDesign(BasicBlock, _BLOCKS_18, ("A",), _NO_MAXPOOL, has_maxpool=False),
        "resnet50-no-maxpool": ResNetDesign(Bottleneck, _BLOCKS_50, ("A",), _NO_MAXPOOL, has_maxpool=False),
        "resnet152-no-maxpool": ResNetDesign(Bottleneck, _BLOCKS_152, ("A",), _NO_MAXPOOL, has_maxpool=False),
        "resnet50-report-b": ResNetDesign(LinearBottleneck, _BLOCKS_50, ("B",), _LINEAR),
        "resnet152-report-b": ResNetDesign(LinearBottleneck, _BLOCKS_152, ("B",), _LINEAR),
        "resnet18-concat": ResNetDesign(ConcatBlock, _BLOCKS_18, ("B",), _CONCAT),
    }
)
MODEL_NAMES = tuple(DESIGNS)


def build_model(name: str, num_classes: int, *, seed: int = 0) -> nn.Module:
    """Return the network `name` with weights drawn from `seed`.

    torch's global random state is the same after the call as before it.

    Parameters
    ----------
    name : str
        One of `MODEL_NAMES`.
    num_classes : int
        Number of logits, at least 2.
    seed : int
        The same seed gives the same weights.

    Returns
    -------
    torch.nn.Module
        On the CPU, float32, in training mode; (B,3,H,W) in, logits (B,num_classes) out.

    Raises
    ------
    UsageError
        If the name is unknown or there are fewer than two classes.
    """
    if name not in DESIGNS:
        raise UsageError(f"unknown model {name!r}; known models: {', '.join(MODEL_NAMES)}")
    if num_classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, got {num_classes}")
    design = DESIGNS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(
            design.block,
            design.blocks_per_stage,
            num_classes,
            has_maxpool=design.has_maxpool,
            channels=design.channels,
        )


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable numbers in a network."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


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
