"""ResNets written here, the second report's blocks, and what a network costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leukemia_models.evaluation.predict import evaluating

STANDARD_CHANNELS = 64
"""After the stem, and in the first stage; every later stage has twice as many."""


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size at stride 1; no bias, a BatchNorm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution; no bias, a BatchNorm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut's 1x1 projection where the block changes the shape, else None (identity)."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class Block(Protocol):
    """What a stage needs of a kind of residual block."""

    @property
    def expansion(self) -> int:
        """Output channels per channel of `width`."""
        ...

    def __call__(self, in_channels: int, width: int, stride: int) -> nn.Module:
        """Build a block with `width * expansion` output channels."""
        ...


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and 34).

    Parameters
    ----------
    in_channels : int
        Channels that come in.
    width : int
        Channels of both convolutions, and of the output.
    stride : int
        Stride of the first convolution and of the shortcut.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(in_channels, width * self.expansion, stride)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return ``relu(branch(x) + shortcut(x))``."""
        shortcut = features_BCHW if self.downsample is None else self.downsample(features_BCHW)
        branch = self.relu(self.bn1(self.conv1(features_BCHW)))
        branch = self.bn2(self.conv2(branch))
        return cast(Tensor, self.relu(branch + shortcut))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, and a shortcut (ResNet-50, 101 and 152).

    Parameters
    ----------
    in_channels : int
        Channels that come in.
    width : int
        Channels of the two inner convolutions; the output has four times as many.
    stride : int
        Stride of the 3x3 convolution and of the shortcut.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return ``relu(branch(x) + shortcut(x))``."""
        shortcut = features_BCHW if self.downsample is None else self.downsample(features_BCHW)
        branch = self.relu(self.bn1(self.conv1(features_BCHW)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return cast(Tensor, self.relu(branch + shortcut))


def stage(block: Block, in_channels: int, width: int, num_blocks: int, stride: int) -> nn.Sequential:
    """Return `num_blocks` blocks in a row; only the first has the stride and sees `in_channels`."""
    out_channels = width * block.expansion
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(out_channels, width, 1) for _ in range(num_blocks - 1)))


class ResNet(nn.Module):
    """Stem, four stages, global average, one linear layer.

    At 224 px the stages put out 56, 28, 14 and 7 px, without the max-pool twice as many; any height and width of at
    least 32 px works.

    Parameters
    ----------
    block : BasicBlock or Bottleneck
        Kind of residual block.
    blocks_per_stage : tuple of four ints
        For example (2, 2, 2, 2) for ResNet-18.
    num_classes : int
        Number of logits.
    has_maxpool : bool
        Whether the stem ends in a 3x3 max-pool of stride 2. Parameters are the same with and without it.
    channels : int
        Channels of the stem and width of the first stage; every later stage is twice as wide as the one before.
    """

    def __init__(
        self,
        block: Block,
        blocks_per_stage: tuple[int, int, int, int],
        num_classes: int,
        *,
        has_maxpool: bool = True,
        channels: int = STANDARD_CHANNELS,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if has_maxpool else nn.Identity()
        expansion = block.expansion
        self.layer1 = stage(block, channels, channels, blocks_per_stage[0], stride=1)
        self.layer2 = stage(block, channels * expansion, 2 * channels, blocks_per_stage[1], stride=2)
        self.layer3 = stage(block, 2 * channels * expansion, 4 * channels, blocks_per_stage[2], stride=2)
        self.layer4 = stage(block, 4 * channels * expansion, 8 * channels, blocks_per_stage[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * channels * expansion, num_classes)
        initialise(self)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return logits (B,K) of normalised float images (B,3,H,W)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images_BCHW))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return cast(Tensor, self.fc(self.avgpool(features).flatten(1)))


def initialise(model: nn.Module) -> None:
    """Draw the convolutions as He et al. (2015) do, preserving the variance of the gradient (fan out).

    BatchNorm and linear layers keep torch's own start: scale 1, shift 0; uniform in +-1/sqrt(inputs).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class LinearBottleneck(Bottleneck):
    """The second report's bottleneck: no ReLU between the convolutions, one at the end of the branch.

    The three convolutions of a branch are one linear map then, apart from what BatchNorm does in training, and the
    branch can only add to the shortcut. Parameters are those of :class:`~leukemia_models.networks.resnet.Bottleneck`.
    """

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return ``relu(relu(branch(x)) + shortcut(x))``."""
        shortcut = features_BCHW if self.downsample is None else self.downsample(features_BCHW)
        branch = self.bn1(self.conv1(features_BCHW))
        branch = self.bn2(self.conv2(branch))
        branch = self.relu(self.bn3(self.conv3(branch)))
        return cast(Tensor, self.relu(branch + shortcut))


class ConcatBlock(BasicBlock):
    """The second report's concatenation block: branch and shortcut side by side, then a 3x3 convolution and a ReLU.

    The branch is that of :class:`~leukemia_models.networks.resnet.BasicBlock`. The convolution that merges has a bias
    and no BatchNorm, and there is no path around it: the comparison with adding is the report's, not a fair one.

    Parameters
    ----------
    in_channels : int
        Channels that come in.
    width : int
        Channels of the branch, and of the output.
    stride : int
        Stride of the first convolution and of the shortcut.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__(in_channels, width, stride)
        self.merge = nn.Conv2d(2 * width, width, kernel_size=3, padding=1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return ``relu(merge(cat(branch(x), shortcut(x))))``."""
        shortcut = features_BCHW if self.downsample is None else self.downsample(features_BCHW)
        branch = self.relu(self.bn1(self.conv1(features_BCHW)))
        branch = self.bn2(self.conv2(branch))
        return cast(Tensor, self.relu(self.merge(torch.cat([branch, shortcut], dim=1))))


BLOCKS: Mapping[str, Block] = MappingProxyType(
    {"basic": BasicBlock, "bottleneck": Bottleneck, "linear bottleneck": LinearBottleneck, "concat": ConcatBlock}
)
"""Kinds of residual blocks by the names that the registry of networks has for them."""

STAGE_NAMES = ("layer1", "layer2", "layer3", "layer4")
_FLOPS_PER_MULTIPLY_ADD = 2


def stage_sizes(model: nn.Module, images_BCHW: Tensor) -> tuple[int, ...]:
    """Return the side of the output of each of a ResNet's stages, in px; empty for other networks."""
    with _noted_stage_sizes(model) as sizes_px, evaluating(model):
        model(images_BCHW)
    return tuple(sizes_px)


def count_multiply_adds(model: nn.Module, images_BCHW: Tensor) -> int:
    """Return the multiply-adds of convolutions and linear layers for a batch; model and batch on one device."""
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(images_BCHW)
    return int(counter.get_total_flops()) // _FLOPS_PER_MULTIPLY_ADD


@contextmanager
def _noted_stage_sizes(model: nn.Module) -> Iterator[list[int]]:
    """Fill a list with the side of each stage's output while `model` runs in the block; none but of a ResNet."""
    sizes_px: list[int] = []

    def note_size(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes_px.append(output.shape[-1])

    stages = [module for name, module in model.named_children() if name in STAGE_NAMES]
    handles = [stage.register_forward_hook(note_size) for stage in stages]
    try:
        yield sizes_px
    finally:
        for handle in handles:
            handle.remove()
