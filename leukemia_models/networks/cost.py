"""What a network costs, counted on the network itself: parameters, multiply-adds, sizes of its stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leukemia_models.evaluation.predict import evaluating

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
