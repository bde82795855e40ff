from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leukemia_models.networks.convolution import Conv2d


class Geometry(NamedTuple):
    in_channels: int = 256
    out_channels: int = 128
    kernel_size: int = 3
    stride: int = 1
    padding: int = 1
    height: int = 4
    width: int = 4
    bias: bool = False


def layers(geometry: Geometry, dtype: torch.dtype = torch.float64) -> tuple[Conv2d, nn.Conv2d]:
    """Our layer and torch's with the same weights."""
    torch.manual_seed(0)
    options = geometry._asdict()
    del options["height"], options["width"]
    theirs = nn.Conv2d(**options, dtype=dtype)
    ours = Conv2d(**options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def maps(geometry: Geometry, dtype: torch.dtype = torch.float64, images: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (images, geometry.in_channels, geometry.height, geometry.width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def output_and_gradients(layer: nn.Conv2d, maps_BCHW: Tensor) -> list[Tensor]:
    layer.zero_grad()
    inputs = maps_BCHW.clone().requires_grad_()
    output = layer(inputs)
    output.backward(torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output))
    assert inputs.grad is not None
    gradients = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    return [output.detach(), inputs.grad, *gradients]


class ConvolutionsCalled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of torch's own convolutions that run in the block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if "convolution" in str(func):
            self.names.append(str(func))
        return func(*args, **kwargs or {})


FORMATS = [
    pytest.param(torch.contiguous_format, id="planes"),
    pytest.param(torch.channels_last, id="channels_last"),
]
OTHER_KINDS: list[dict[str, Any]] = [
    {"groups": 2},
    {"dilation": 2},
    {"padding": "same"},
    {"padding": (1, 0)},
    {"padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(),
        Geometry(height=2, width=2),
        Geometry(height=1, width=1),
        Geometry(height=2, width=4, out_channels=192, bias=True),
        Geometry(height=8, width=8, stride=2, out_channels=256),
        Geometry(height=7, width=5, stride=2, bias=True),
        Geometry(height=8, width=8),
        Geometry(kernel_size=1, padding=0),
        Geometry(kernel_size=1, padding=0, stride=2, height=7, width=7),
        Geometry(kernel_size=5, padding=2, height=3),
        Geometry(padding=0),
        Geometry(padding=3, height=1, width=1),
        Geometry(height=16, width=16),
        Geometry(in_channels=128),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["planes", "channels_last"]
)
def test_outputs_and_gradients_equal_torchs(geometry: Geometry, memory_format: torch.memory_format) -> None:
    ours, theirs = (layer.to(memory_format=memory_format) for layer in layers(geometry))
    inputs = maps(geometry).to(memory_format=memory_format)
    for mine, other in zip(output_and_gradients(ours, inputs), output_and_gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_gradients_equal_numerical_ones() -> None:
    geometry = Geometry(height=2, width=2)
    ours, _ = layers(geometry)
    assert torch.autograd.gradcheck(ours, maps(geometry, images=1).requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("size_px", [2, 4, 8])
def test_in_bfloat16_it_errs_no_more_than_torchs(size_px: int) -> None:
    geometry = Geometry(height=size_px, width=size_px)
    exact = output_and_gradients(layers(geometry)[1], maps(geometry))
    found = []
    for layer in layers(geometry, torch.float32):
        with torch.autocast("cpu", torch.bfloat16):
            found.append(output_and_gradients(layer, maps(geometry, torch.float32)))
    for true, mine, other in zip(exact, *found, strict=True):
        assert mine.dtype is other.dtype
        assert (mine - true).norm() <= 1.1 * (other - true).norm() + 1e-3 * true.norm()


def test_small_maps_are_learnt_by_matrix_products_alone() -> None:
    geometry = Geometry(height=4, width=4)
    counts = []
    for layer in layers(geometry):
        with ConvolutionsCalled() as called:
            output_and_gradients(layer, maps(geometry))
        counts.append(len(called.names))
    assert counts == [0, 2]


@pytest.mark.parametrize("mode", ["evaluation", "no gradient", "large maps", "few channels", "meta"])
def test_elsewhere_it_is_torchs_layer_bit_for_bit(mode: str) -> None:
    geometry = Geometry(height=9 if mode == "large maps" else 4, in_channels=64 if mode == "few channels" else 256)
    ours, theirs = layers(geometry, torch.float32)
    ours.train(mode != "evaluation")
    inputs = maps(geometry, torch.float32)
    if mode == "meta":
        ours, inputs = ours.to("meta"), inputs.to("meta")
        assert ours(inputs).shape == theirs(maps(geometry, torch.float32)).shape
        return
    with torch.set_grad_enabled(mode != "no gradient"):
        assert torch.equal(ours(inputs), theirs(inputs))


@pytest.mark.parametrize("options", OTHER_KINDS, ids=str)
def test_other_kinds_of_convolution_are_torchs(options: dict[str, Any]) -> None:
    ours, theirs = Conv2d(256, 128, 3, **options), nn.Conv2d(256, 128, 3, **options)
    ours.load_state_dict(theirs.state_dict())
    inputs = maps(Geometry(height=5, width=5), torch.float32)
    for mine, other in zip(output_and_gradients(ours, inputs), output_and_gradients(theirs, inputs), strict=True):
        assert torch.equal(mine, other)
