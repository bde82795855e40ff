"""Networks by name: description, cost and construction.

To add a network: :func:`register_network`. torch is imported when a network is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from leukemia_data.errors import UsageError
from leukemia_data.registry import Registry

if TYPE_CHECKING:
    from torch import nn

MIN_SIZE_PX = 32
MAX_SIZE_PX = 4096
BuildNetwork = Callable[[int], "nn.Module"]
"""``build(num_classes)``: a network from RGB images (B,3,H,W) to logits (B,num_classes), on the CPU, float32."""


class ModelCost(NamedTuple):
    """Cost of a network for square images of one size.

    Attributes
    ----------
    size_px
        Side of the images.
    parameters
        Number of trainable values.
    multiply_adds
        Of convolutions and linear layers for one image; without BatchNorm, ReLU and pooling.
    stage_sizes_px
        Side of the output of each of a ResNet's four stages; empty for other networks.
    """

    size_px: int
    parameters: int
    multiply_adds: int
    stage_sizes_px: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A registered network, see :func:`register_network`."""

    name: str
    build: BuildNetwork
    description: str
    reports: tuple[str, ...] = ()
    costs: Mapping[int, ModelCost] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkDescription:
    """A row of the table of networks."""

    name: str
    cost: ModelCost
    reports: tuple[str, ...]
    description: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and those of the cost as JSON values."""
        return {"name": self.name, **self.cost._asdict(), "reports": self.reports, "description": self.description}


NETWORKS: Registry[Network] = Registry("model")


def register_network(
    name: str,
    build: BuildNetwork,
    description: str,
    reports: tuple[str, ...] = (),
    costs: Mapping[int, ModelCost] | None = None,
) -> Network:
    """Register a network for training plans, the command line and the library.

    Parameters
    ----------
    name : str
        Its name in plans, runs and checkpoints.
    build : callable
        ``build(num_classes)`` returns a :class:`torch.nn.Module` that maps normalised images (B,3,H,W) of any size to
        logits (B,num_classes). It may draw weights from torch's global random state, which is seeded.
    description : str
    reports : tuple of str
        The course reports that have it, ``A`` or ``B``.
    costs : mapping of int to ModelCost, optional
        Known costs by image size, for two classes; others are counted.

    Raises
    ------
    UsageError
        If the name is taken.
    """
    return NETWORKS.register(
        Network(name=name, build=build, description=description, reports=reports, costs=dict(costs or {}))
    )


def model_names() -> tuple[str, ...]:
    """Return the names of all networks, without loading torch."""
    return NETWORKS.names()


def describe_models(size_px: int) -> list[NetworkDescription]:
    """Return all networks with their costs at an image size, for two classes.

    torch is loaded only to count costs that are not recorded; those of shipped networks at 128 and 224 px are.

    Raises
    ------
    UsageError
        If the size is not within 32 to 4096 px.
    """
    networks = map(NETWORKS.get, NETWORKS)
    return [
        NetworkDescription(each.name, model_cost(each.name, size_px), each.reports, each.description)
        for each in networks
    ]


def model_cost(name: str, size_px: int, num_classes: int = 2) -> ModelCost:
    """Return the cost of a network, recorded or else counted.

    Raises
    ------
    UsageError
        If the name is unknown, or the size not within 32 to 4096 px.
    """
    if not MIN_SIZE_PX <= size_px <= MAX_SIZE_PX:
        raise UsageError(f"the size must be {MIN_SIZE_PX} to {MAX_SIZE_PX} px, got {size_px}")
    recorded = NETWORKS.get(name).costs.get(size_px) if num_classes == 2 else None
    return recorded or measure_cost(name, size_px, num_classes)


def measure_cost(name: str, size_px: int, num_classes: int = 2) -> ModelCost:
    """Count the cost of a network on torch's meta device, without computing."""
    import torch

    from leukemia_models.networks.resnet import count_multiply_adds, stage_sizes

    model = build_outline(name, num_classes)
    image = torch.empty(1, 3, size_px, size_px, device="meta")
    return ModelCost(size_px, count_parameters(model), count_multiply_adds(model, image), stage_sizes(model, image))


def build_model(name: str, num_classes: int, *, seed: int = 0) -> nn.Module:
    """Return a network with weights drawn from `seed`, on the CPU, float32, in training mode.

    It maps images (B,3,H,W) to logits (B,num_classes). torch's global random state is left unchanged.

    Raises
    ------
    UsageError
        If the name is unknown or `num_classes` is below 2.
    """
    network = NETWORKS.get(name)
    if num_classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, got {num_classes}")
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network.build(num_classes)


def build_outline(name: str, num_classes: int) -> nn.Module:
    """Return a network on torch's meta device: shapes without values, which take no memory. Raises as build_model."""
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutDraws(TorchFunctionMode):
        # On the meta device a draw changes nothing, but its first one imports sympy: 1.5 s of every training's start.
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            kwargs = kwargs or {}
            if getattr(func, "__name__", "") in ("normal_", "uniform_"):
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with torch.device("meta"), WithoutDraws():
        return build_model(name, num_classes)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable values in a network."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _register_resnet(
    name: str,
    block: str,
    blocks_per_stage: tuple[int, int, int, int],
    description: str,
    reports: tuple[str, ...],
    cost: tuple[int, int, int],
    **options: Any,  # noqa: ANN401 - of ResNet
) -> None:
    """Register a ResNet (He et al. 2015, table 1); `cost` is parameters, and multiply-adds at 128 and 224 px."""

    def build(num_classes: int) -> nn.Module:
        from leukemia_models.networks import resnet

        return resnet.ResNet(resnet.BLOCKS[block], blocks_per_stage, num_classes, **options)

    parameters, *multiply_adds = cost
    # The stem, its max-pool and the later stages halve the side.
    first = 4 if options.get("has_maxpool", True) else 2
    costs = {
        size_px: ModelCost(size_px, parameters, count, tuple(size_px // (first * 2**stage) for stage in range(4)))
        for size_px, count in zip((128, 224), multiply_adds, strict=True)
    }
    register_network(name, build, description, reports, costs)


def _register_resnets() -> None:
    blocks_18, blocks_50, blocks_152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 8, 36, 3)
    basic, bottleneck = "blocks of two 3x3 convolutions", "bottleneck blocks"
    narrow = "a quarter of the channels: for trials on a CPU"
    no_maxpool = "as its listing prints it: no max-pool"
    linear = "as its code has it: no ReLU between a branch's convolutions, one at its end"
    concat = "branch and shortcut concatenated, then a 3x3 convolution"
    cost_18 = (11_177_538, 592_184_320, 1_813_562_368)
    cost_50 = (23_512_130, 1_334_579_200, 4_087_140_352)
    cost_152 = (58_147_906, 3_758_886_912, 11_511_582_720)
    add = _register_resnet
    add("resnet18", "basic", blocks_18, basic, ("A", "B"), cost_18)
    add("resnet18-narrow", "basic", blocks_18, narrow, (), (702_354, 44_237_056, 135_475_456), channels=16)
    add("resnet34", "basic", (3, 4, 6, 3), basic, (), (21_285_698, 1_196_164_096, 3_663_250_432))
    add("resnet50", "bottleneck", blocks_50, bottleneck, ("A", "B"), cost_50)
    add("resnet101", "bottleneck", (3, 4, 23, 3), bottleneck, (), (42_504_258, 2_546_733_056, 7_799_361_536))
    add("resnet152", "bottleneck", blocks_152, bottleneck, ("A", "B"), cost_152)
    large_18 = (11_177_538, 2_253_128_704, 6_900_204_544)
    large_50 = (23_512_130, 5_222_699_008, 15_994_507_264)
    large_152 = (58_147_906, 14_919_929_856, 45_692_276_736)
    add("resnet18-no-maxpool", "basic", blocks_18, no_maxpool, ("A",), large_18, has_maxpool=False)
    add("resnet50-no-maxpool", "bottleneck", blocks_50, no_maxpool, ("A",), large_50, has_maxpool=False)
    add("resnet152-no-maxpool", "bottleneck", blocks_152, no_maxpool, ("A",), large_152, has_maxpool=False)
    add("resnet50-report-b", "linear bottleneck", blocks_50, linear, ("B",), cost_50)
    add("resnet152-report-b", "linear bottleneck", blocks_152, linear, ("B",), cost_152)
    add("resnet18-concat", "concat", blocks_18, concat, ("B",), (23_713_218, 1_196_164_096, 3_663_250_432))


_register_resnets()
