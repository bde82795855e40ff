from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from leukemia_models.networks.registry import build_model
from leukemia_models.networks.resnet import BasicBlock, Bottleneck

STANDARD_NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def torchvision_model(name: str, num_classes: int) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None, num_classes=num_classes)


def with_weights_of(name: str, theirs: nn.Module) -> nn.Module:
    """Our network with their weights, without drawing weights that are not used."""
    with torch.device("meta"):
        ours = build_model(name, 2)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return ours


def give_batchnorms_a_past(model: nn.Module, generator: torch.Generator) -> None:
    """Running statistics of 0 and 1 would hide a BatchNorm that is in the wrong place."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.3, 0.7, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)


@pytest.mark.parametrize("name", STANDARD_NAMES)
def test_state_dict_is_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours = build_model(name, 2).state_dict()
        theirs = torchvision_model(name, 2).state_dict()
    assert list(ours) == list(theirs)
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_outputs_equal_torchvisions_after_copying_weights(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    theirs = torchvision_model(name, 2).eval()
    give_batchnorms_a_past(theirs, generator)
    ours = with_weights_of(name, theirs).eval()
    for size_px in (64, 96):
        images = torch.randn(3, 3, size_px, size_px, generator=generator)
        with torch.inference_mode():
            torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet101", "resnet152"])
def test_deep_outputs_equal_torchvisions(name: str) -> None:
    theirs = torchvision_model(name, 2).eval()
    ours = with_weights_of(name, theirs).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


def test_gradients_equal_torchvisions() -> None:
    theirs, ours = torchvision_model("resnet18", 2), build_model("resnet18", 2)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 1, 0])).backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize(
    ("names", "sizes_px"),
    [
        (
            (*STANDARD_NAMES, "resnet18-narrow", "resnet50-report-b", "resnet152-report-b", "resnet18-concat"),
            [112, 56, 28, 14, 7],
        ),
        (("resnet18-no-maxpool", "resnet50-no-maxpool", "resnet152-no-maxpool"), [112, 112, 56, 28, 14]),
    ],
    ids=["with max-pool", "without"],
)
def test_sizes_of_the_stages_at_224(names: tuple[str, ...], sizes_px: list[int]) -> None:
    for name in names:
        found: dict[str, int] = {}

        def note_size(stage: str, found: dict[str, int] = found) -> object:
            def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
                assert output.shape[-1] == output.shape[-2]
                found[stage] = output.shape[-1]

            return hook

        with torch.device("meta"):
            model = build_model(name, 2)
            for stage in ("conv1", "layer1", "layer2", "layer3", "layer4"):
                model.get_submodule(stage).register_forward_hook(note_size(stage))
            logits = model(torch.empty(2, 3, 224, 224))
        assert list(found.values()) == sizes_px
        assert logits.shape == (2, 2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152"])
def test_without_maxpool_equals_torchvisions_with_an_identity_there(name: str) -> None:
    generator = torch.Generator().manual_seed(6)
    theirs = torchvision_model(name, 2).eval()
    theirs.maxpool = nn.Identity()
    give_batchnorms_a_past(theirs, generator)
    ours = with_weights_of(f"{name}-no-maxpool", theirs).eval()
    images = torch.randn(2, 3, 48, 48, generator=generator)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152"])
def test_weights_do_not_depend_on_the_maxpool(name: str) -> None:
    """The same seed draws the same network; the pool has no parameter."""
    ours, plain = (build_model(each, 2, seed=2).state_dict() for each in (f"{name}-no-maxpool", name))
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[key], plain[key]) for key in plain)


@pytest.mark.parametrize(
    ("block", "in_channels", "width", "stride", "projects"),
    [
        (BasicBlock, 64, 64, 1, False),
        (BasicBlock, 64, 64, 2, True),
        (BasicBlock, 64, 128, 1, True),
        (Bottleneck, 64, 64, 1, True),
        (Bottleneck, 256, 64, 1, False),
        (Bottleneck, 256, 64, 2, True),
    ],
)
def test_shortcut_projects_where_the_shape_differs(
    block: type[BasicBlock | Bottleneck], in_channels: int, width: int, stride: int, projects: bool
) -> None:
    built = block(in_channels, width, stride)
    assert (built.downsample is not None) == projects
    out = built(torch.zeros(2, in_channels, 8, 8))
    assert out.shape == (2, width * block.expansion, 8 // stride, 8 // stride)


def test_convolutions_start_with_the_fan_out_deviation() -> None:
    weight = build_model("resnet18", 2, seed=1).get_parameter("layer4.1.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert abs(weight.mean().item()) < 1e-4
