"""Files of weights of several programs, compared with the networks that they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from leukemia_data.errors import RunError
from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint import CheckpointInfo, save_checkpoint
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainSettings, TrainState
from leukemia_models.training.start_file import StartReport, head_layer, load_start

from ..fakes import NORMALIZATION, copied_state, same_state


def saved(model: torch.nn.Module, path: Path) -> Path:
    safetensors.torch.save_file(copied_state(model), path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_file_of_torchvision_gives_its_answers(tmp_path: Path, name: str) -> None:
    theirs = torchvision.models.get_model(name, num_classes=2).eval()
    ours = build_model(name, 2, seed=5).eval()
    load_start(ours, saved(theirs, tmp_path / "theirs.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


def test_file_without_counters_of_batches_is_taken(tmp_path: Path) -> None:
    whole = copied_state(build_model("resnet18", 2, seed=5))
    path = tmp_path / "old.safetensors"
    safetensors.torch.save_file({k: v for k, v in whole.items() if not k.endswith("num_batches_tracked")}, path)
    model = build_model("resnet18", 2)
    load_start(model, path)
    assert same_state(copied_state(model), whole)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    model = build_model("resnet18", 2)
    before = copied_state(model)
    deeper = saved(torchvision.models.resnet34(num_classes=2), tmp_path / "deeper.safetensors")
    with pytest.raises(
        RunError, match=r"deeper\.safetensors is of another network: layer1\.2\.\S+ is not in the network"
    ):
        load_start(model, deeper)
    assert same_state(copied_state(model), before)
    with pytest.raises(RunError, match=r"of another network: .* instead of .* \(and \d+ more\)"):
        load_start(build_model("resnet50", 2), deeper)


def test_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"what")
    for name in ("weights.safetensors", "absent.safetensors"):
        with pytest.raises(RunError, match=name):
            load_start(build_model("resnet18", 2), tmp_path / name)


def test_file_in_half_precision_is_taken(tmp_path: Path) -> None:
    whole = copied_state(build_model("resnet18-narrow", 2, seed=5))
    path = tmp_path / "half.safetensors"
    halves = {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
    safetensors.torch.save_file(halves, path)
    model = build_model("resnet18-narrow", 2)
    load_start(model, path)
    assert same_state(copied_state(model), {name: value.to(whole[name].dtype) for name, value in halves.items()})


def _set(tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[:3] = value
    return changed


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("conv1.weight", lambda t: _set(t, float("nan")), r"not finite \(conv1\.weight, 3 of "),
        ("fc.bias", lambda t: t * float("-inf"), r"not finite \(fc\.bias, 2 of 2\)"),
        ("fc.bias", lambda t: torch.full_like(t, 1e300, dtype=torch.float64), r"not finite \(fc\.bias, 2 of 2\)"),
        ("bn1.running_mean", lambda t: _set(t, float("inf")), r"not finite \(bn1\.running_mean, 3 of "),
        ("bn1.running_var", lambda t: _set(t, -1e-3), r"variances of BatchNorm below 0 \(bn1\.running_var, 3 of "),
        ("conv1.weight", lambda t: t.to(torch.int8), "conv1.weight is int8 instead of float32"),
        ("conv1.weight", lambda t: t > 0, "conv1.weight is bool instead of float32"),
        ("bn1.num_batches_tracked", lambda t: t.float(), "bn1.num_batches_tracked is float32 instead of int64"),
    ],
)
def test_file_whose_numbers_are_no_weights_is_refused_by_tensor(tmp_path: Path, name: str, change, words: str) -> None:
    model = build_model("resnet18-narrow", 2)
    state, path = copied_state(model), tmp_path / "spoilt.safetensors"
    before = copied_state(model)
    safetensors.torch.save_file({**state, name: change(state[name])}, path)
    with pytest.raises(RunError, match=rf"spoilt\.safetensors .*{words}"):
        load_start(model, path)
    assert same_state(copied_state(model), before)


def features_of(model: nn.Module, images: Tensor) -> Tensor:
    """The input of a network's head."""
    found: list[Tensor] = []
    head = model.get_submodule(head_layer(model))
    handle = head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    model.eval()(images)
    handle.remove()
    return found[0]


def imagenet_network(name: str) -> nn.Module:
    torch.manual_seed(7)
    return torchvision.models.get_model(name, num_classes=1000)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_networks_for_1000_classes_give_their_features(tmp_path: Path, name: str, suffix: str) -> None:
    theirs, path = imagenet_network(name), tmp_path / f"theirs{suffix}"
    saved(theirs, path) if suffix == ".safetensors" else torch.save(theirs.state_dict(), path)
    ours = build_model(name, 2, seed=5)
    head = ours.fc.weight.detach().clone()
    report = load_start(ours, path, ("hem", "all"))
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(features_of(ours, images), features_of(theirs, images), atol=1e-5, rtol=1e-5)
    assert report.replaced == ("fc.weight", "fc.bias")
    assert report.num_taken == len(theirs.state_dict()) - 2
    assert torch.equal(ours.fc.weight, head)


def test_a_network_of_timm_gives_its_features(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    theirs = timm.create_model("resnet18", pretrained=False)
    torch.save({"state_dict": theirs.state_dict(), "epoch": 3}, tmp_path / "timm.pth")
    ours = build_model("resnet18", 5)
    report = load_start(ours, tmp_path / "timm.pth")
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(features_of(ours, images), features_of(theirs, images), atol=1e-5, rtol=1e-5)
    assert "in its state_dict" in report.origin


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: renamed(state, "module."),
        lambda state: {"model": renamed(state, "module.model.")},
        lambda state: {"state_dict": {**renamed(state, "model."), "criterion.weight": torch.ones(2)}, "lr": 0.1},
        lambda state: {"epoch": 1, "module": renamed(state, "_orig_mod.")},
    ],
    ids=["ddp", "nested", "lightning", "compiled"],
)
def test_wrappers_of_other_programs_are_taken_off(tmp_path: Path, wrap: Any) -> None:
    state = copied_state(build_model("resnet18-narrow", 2, seed=5))
    torch.save(wrap(state), tmp_path / "wrapped.ckpt")
    model = build_model("resnet18-narrow", 2)
    report = load_start(model, tmp_path / "wrapped.ckpt")
    assert same_state(copied_state(model), state)
    assert report.ignored in ((), ("criterion.weight",))


class RunsCode:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "ran"))


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    state = copied_state(build_model("resnet18-narrow", 2))
    torch.save({"state_dict": state, "more": RunsCode(tmp_path / "ran")}, tmp_path / "hostile.pth")
    with pytest.raises(RunError, match=r"hostile\.pth holds more than tensors, and code from files is never run"):
        load_start(build_model("resnet18-narrow", 2), tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"lr": 0.1}, [1, 2], {"optimizer": {"a": {"b": 1}}}], ids=str)
def test_a_file_without_tensors_says_where_they_were_sought(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "none.pth")
    with pytest.raises(RunError, match="holds no network's tensors, at its top or in one of state_dict"):
        load_start(build_model("resnet18-narrow", 2), tmp_path / "none.pth")


@pytest.mark.parametrize("data", [b"", b"what", b"PK\x03\x04 broken"])
def test_what_torch_cannot_read_is_refused_in_a_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "broken.pt").write_bytes(data)
    with pytest.raises(RunError, match=r"broken\.pt ") as raised:
        load_start(build_model("resnet18-narrow", 2), tmp_path / "broken.pt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("num_channels", [1, 4])
def test_a_first_convolution_of_other_channels_answers_to_grey_images_as_before(
    tmp_path: Path, num_channels: int
) -> None:
    theirs = build_model("resnet18-narrow", 2, seed=5)
    theirs.conv1 = nn.Conv2d(num_channels, 16, 7, stride=2, padding=3, bias=False)
    path = saved(theirs, tmp_path / "channels.safetensors")
    ours = build_model("resnet18-narrow", 2)
    report = load_start(ours, path)
    assert report.adapted == ("conv1.weight",)
    grey = torch.randn(2, 1, 64, 64)
    found, expected = (
        model.eval()(grey.repeat(1, count, 1, 1)) for model, count in ((ours, 3), (theirs, num_channels))
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_checkpoints_for_other_classes_keep_all_but_the_head_and_reordered_ones_the_head_too(tmp_path: Path) -> None:
    trained = build_model("resnet18-narrow", 2, seed=5)
    info = CheckpointInfo(
        model_name="resnet18-narrow",
        classes=("hem", "all"),
        size_px=64,
        normalization=NORMALIZATION,
        recipe={"name": "raw", "steps": []},
        data_fingerprint="ab" * 32,
        split_kind="subject",
        settings=TrainSettings(epochs=3),
    )
    state = TrainState(TrainHistory(), None)
    save_checkpoint(tmp_path / "own.safetensors", trained, info, state, resumable=False)
    images = torch.randn(2, 3, 64, 64)
    turned, other = build_model("resnet18-narrow", 2), build_model("resnet18-narrow", 3)
    report = load_start(turned, tmp_path / "own.safetensors", tuple(reversed(info.classes)))
    torch.testing.assert_close(turned.eval()(images), trained.eval()(images).flip(1))
    assert report.replaced == ()
    report = load_start(other, tmp_path / "own.safetensors", ("a", "b", "c"))
    torch.testing.assert_close(features_of(other, images), features_of(trained, images))
    assert report.replaced == ("fc.weight", "fc.bias")
    assert "for other classes (hem, all)" in report.origin


def test_the_report_is_a_line_and_json() -> None:
    report = StartReport(origin="tensors of another program", num_taken=120, replaced=("fc.weight", "fc.bias"))
    assert report.text == "tensors of another program; 120 tensors taken; drawn anew: fc.weight, fc.bias"
    assert json.loads(json.dumps(report.to_dict()))["replaced"] == ["fc.weight", "fc.bias"]
