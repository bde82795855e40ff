"""ResNets, the second report's blocks, and the cost of a network."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leukemia_models.evaluation.predict import evaluating
from leukemia_models.networks.convolution import Conv2d


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size at stride 1; no bias, a BatchNorm follows."""
    return Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution; no bias, a BatchNorm follows."""
    return Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut's 1x1 projection where the block changes the shape, else None (identity)."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class Block(Protocol):
    """A kind of residual block."""

    @property
    def expansion(self) -> int:
        """Output channels per channel of `width`."""

    def __call__(self, in_channels: int, width: int, stride: int) -> nn.Module:
        """Build a block with `width * expansion` output channels."""


class _ResidualBlock(nn.Module):
    """A branch and a shortcut, which is the identity without a `downsample`."""

    relu: nn.ReLU
    downsample: nn.Sequential | None

    def _branch(self, features_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def _shortcut(self, features_BCHW: Tensor) -> Tensor:
        return features_BCHW if self.downsample is None else cast(Tensor, self.downsample(features_BCHW))

    def forward(self, features_BCHW: Tensor) -> Tensor:
        return cast(Tensor, self.relu(self._branch(features_BCHW) + self._shortcut(features_BCHW)))


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions of `width` channels and a shortcut (ResNet-18 and 34).

    The first convolution and the shortcut have the stride.
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

    def _branch(self, features_BCHW: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(features_BCHW)))
        return cast(Tensor, self.bn2(self.conv2(inner)))


class Bottleneck(_ResidualBlock):
    """1x1 and 3x3 convolutions of `width` channels, 1x1 to four times as many, and a shortcut (ResNet-50, 101 and 152).

    The 3x3 convolution and the shortcut have the stride.
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

    def _branch(self, features_BCHW: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(features_BCHW)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return cast(Tensor, self.bn3(self.conv3(inner)))


def stage(block: Block, in_channels: int, width: int, num_blocks: int, stride: int) -> nn.Sequential:
    """Return a sequence of blocks, of which only the first has `stride` and `in_channels`."""
    out_channels = width * block.expansion
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(out_channels, width, 1) for _ in range(num_blocks - 1)))


class ResNet(nn.Module):
    """Stem, four stages, global average, one linear layer.

    Maps normalised float images (B,3,H,W), of at least 32 px, to logits (B,K). At 224 px the outputs of the stages have
    56, 28, 14 and 7 px, without the max-pool twice as many.

    Parameters
    ----------
    block : Block
    blocks_per_stage : tuple of four ints
        For example (2, 2, 2, 2) for ResNet-18.
    num_classes : int
    has_maxpool : bool
        Whether the stem ends in a 3x3 max-pool of stride 2, which has no parameters.
    channels : int
        Channels of the stem and width of the first stage; each later stage is twice as wide.
    """

    def __init__(
        self,
        block: Block,
        blocks_per_stage: tuple[int, int, int, int],
        num_classes: int,
        *,
        has_maxpool: bool = True,
        channels: int = 64,
    ) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False)
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
        # He et al. (2015), preserving the variance of the gradient.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images_BCHW))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self._classified(features)

    def _classified(self, features: Tensor) -> Tensor:
        """Pool and classify in float32 under autocast too: rounded logits would have ties that the images have not."""
        kind = features.device.type
        # The meta device, which counts operations, knows no autocast.
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return cast(Tensor, self.fc(self.avgpool(features).flatten(1)))
        with torch.autocast(kind, enabled=False):
            return cast(Tensor, self.fc(self.avgpool(features.float()).flatten(1)))


class LinearBottleneck(Bottleneck):
    """The second report's bottleneck: no ReLU between the convolutions, one at the end of the branch.

    In eval mode the three convolutions are one linear map, and the branch can only add to the shortcut.
    """

    def _branch(self, features_BCHW: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.bn1(self.conv1(features_BCHW))))
        return cast(Tensor, self.relu(self.bn3(self.conv3(inner))))


class ConcatBlock(BasicBlock):
    """The second report's block: branch and shortcut are concatenated, and merged by a 3x3 convolution and a ReLU.

    As in the report, that convolution has a bias and no BatchNorm, and no shortcut bypasses it.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__(in_channels, width, stride)
        self.merge = Conv2d(2 * width, width, kernel_size=3, padding=1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Return ``relu(merge(cat(branch(x), shortcut(x))))``."""
        both = torch.cat([self._branch(features_BCHW), self._shortcut(features_BCHW)], dim=1)
        return cast(Tensor, self.relu(self.merge(both)))


BLOCKS: Mapping[str, Block] = MappingProxyType(
    {"basic": BasicBlock, "bottleneck": Bottleneck, "linear bottleneck": LinearBottleneck, "concat": ConcatBlock}
)
"""Kinds of residual blocks by their names in the registry of networks."""


def stage_sizes(model: nn.Module, images_BCHW: Tensor) -> tuple[int, ...]:
    """Return the side of the output of each of a ResNet's stages, in px; empty for other networks."""
    sizes_px: list[int] = []

    def note_size(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes_px.append(output.shape[-1])

    stages = [module for name, module in model.named_children() if name in ("layer1", "layer2", "layer3", "layer4")]
    handles = [stage.register_forward_hook(note_size) for stage in stages]
    try:
        with evaluating(model):
            model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(sizes_px)


def count_multiply_adds(model: nn.Module, images_BCHW: Tensor) -> int:
    """Return the multiply-adds of convolutions and linear layers for a batch; model and batch on one device."""
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(images_BCHW)
    # Two floating-point operations each.
    return int(counter.get_total_flops()) // 2
