"""The second report's own residual blocks, for comparison with the standard ones.

Both take the place of a block of :mod:`leukemia_models.networks.resnet`; parts that are the same have the same names.
What is copied is what the report argues about: where the bottleneck's ReLUs stand, and adding against concatenating.
Not copied are slips of its code: a projection only where the number of channels changes, which fails for a stride
between equal numbers, and a third stage of ResNet-50 with 5 blocks instead of 6.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from leukemia_models.networks.resnet import BasicBlock, Bottleneck


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
