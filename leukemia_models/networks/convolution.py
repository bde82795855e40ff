"""Convolutions of small maps as matrix products, which CPUs compute in less time than oneDNN's convolutions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MAX_OUTPUT_PX = 4
"""Largest side of an output map that is a matrix product; from 6 px on oneDNN is as fast."""

MAX_INPUT_PX = 8
"""Largest side of a bfloat16 input map whose weight gradient is a matrix product where the output map is none."""

MIN_CHANNEL_PAIRS = 128 * 256
"""Input channels times output channels; with fewer, matrix products save little."""


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, parameters included, which learns faster on CPUs where maps are small and channels many.

    oneDNN works along the rows of a map; in the last stages of a ResNet they have 2 to 8 px. There the patch below each
    output pixel becomes a row of a matrix (im2col; Chellapilla, Puri and Simard, 2006), and output and gradients are
    products with it, equal but for rounding. On other devices, with larger maps, and wherever nothing is learnt, this
    is the layer of its base class. `benchmarks/bench_convolution.py` has the times.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the maps (B,K,H',W') of `input` (B,C,H,W)."""
        if not (self.training and torch.is_grad_enabled() and self._has_products(input)):
            return super().forward(input)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            input, weight = input.to(dtype), weight.to(dtype)
        # The padding of a square window has one width, or is the name that torch gives to "as many as needed" and 0.
        maps_BKHW = cast(Tensor, _SmallMaps.apply(input, weight, self.stride[0], cast(int, self.padding[0])))
        return maps_BKHW if self.bias is None else maps_BKHW + self.bias.to(maps_BKHW.dtype).view(1, -1, 1, 1)

    def _has_products(self, input_BCHW: Tensor) -> bool:
        is_plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        is_square = all(len({*pair}) == 1 for pair in (self.kernel_size, self.stride, self.padding))
        return (
            (is_plain and is_square and not isinstance(self.padding, str))
            and self.in_channels * self.out_channels >= MIN_CHANNEL_PAIRS
            and (input_BCHW.device.type == "cpu" and max(input_BCHW.shape[-2:]) <= MAX_INPUT_PX)
            and not torch.compiler.is_compiling()
        )


class _SmallMaps(torch.autograd.Function):
    """A square convolution without bias, of which those parts are matrix products that are faster so."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context takes any attribute
        input_BCHW: Tensor,
        weight_KCRR: Tensor,
        stride: int,
        padding: int,
    ) -> Tensor:
        ctx.save_for_backward(input_BCHW, weight_KCRR)
        ctx.stride, ctx.padding = stride, padding
        longest_px = max(input_BCHW.shape[2:]) + 2 * padding - weight_KCRR.shape[2]
        if longest_px // stride + 1 > MAX_OUTPUT_PX:
            return functional.conv2d(input_BCHW, weight_KCRR, stride=stride, padding=padding)
        return _convolved(input_BCHW, weight_KCRR, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BKHW: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        input_BCHW, weight_KCRR = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        is_small = max(gradient_BKHW.shape[2:]) <= MAX_OUTPUT_PX
        wants_input, wants_weight = ctx.needs_input_grad[:2]
        inputs_by_product = is_small and stride == 1
        weights_by_product = is_small or gradient_BKHW.dtype is torch.bfloat16
        left = [wants_input and not inputs_by_product, wants_weight and not weights_by_product, False]
        to_input, to_weight = None, None
        if any(left):
            geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
            to_input, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient_BKHW, input_BCHW, weight_KCRR, None, *geometry, left
            )
        if wants_input and inputs_by_product:
            turned_CKRR = weight_KCRR.transpose(0, 1).flip(2, 3)
            to_input = _convolved(gradient_BKHW, turned_CKRR, 1, weight_KCRR.shape[2] - 1 - padding)
        if wants_weight and weights_by_product:
            to_weight = _weight_gradient(gradient_BKHW, input_BCHW, weight_KCRR.shape[2], stride, padding)
        return to_input, to_weight, None, None


def _convolved(maps_BCHW: Tensor, weight_KCRR: Tensor, stride: int, padding: int) -> Tensor:
    patches_BHWP = _patches(maps_BCHW, weight_KCRR.shape[2], stride, padding)
    weight_KP = weight_KCRR.permute(0, 2, 3, 1).flatten(1)
    return (patches_BHWP @ weight_KP.t()).permute(0, 3, 1, 2)


def _weight_gradient(gradient_BKHW: Tensor, input_BCHW: Tensor, kernel_px: int, stride: int, padding: int) -> Tensor:
    patches_BHWP = _patches(input_BCHW, kernel_px, stride, padding)
    gradient_KN = gradient_BKHW.permute(1, 0, 2, 3).flatten(1)
    gradient_KRRC = (gradient_KN @ patches_BHWP.flatten(0, 2)).view(len(gradient_KN), kernel_px, kernel_px, -1)
    return gradient_KRRC.permute(0, 3, 1, 2)


def _patches(maps_BCHW: Tensor, kernel_px: int, stride: int, padding: int) -> Tensor:
    """Return what lies below each output pixel, as (B,H',W',P) with P = kernel_px * kernel_px * C values."""
    maps_BHWC = functional.pad(maps_BCHW.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    patches_BHWCRR = maps_BHWC.unfold(1, kernel_px, stride).unfold(2, kernel_px, stride)
    return patches_BHWCRR.permute(0, 1, 2, 4, 5, 3).flatten(3)
