from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from leukemia_data.errors import RunError
from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint import Checkpoint, load_weights_file, require_trainable
from leukemia_models.training.history import TrainHistory
from leukemia_models.training.run_state import TrainState, WeightAverageState

from ..fakes import copied_state, same_state


def saved(model: torch.nn.Module, path: Path) -> Path:
    safetensors.torch.save_file(copied_state(model), path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_file_of_torchvision_gives_its_answers(tmp_path: Path, name: str) -> None:
    theirs = torchvision.models.get_model(name, num_classes=2).eval()
    ours = build_model(name, 2, seed=5).eval()
    load_weights_file(ours, saved(theirs, tmp_path / "theirs.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


def test_file_without_counters_of_batches_is_taken(tmp_path: Path) -> None:
    whole = copied_state(build_model("resnet18", 2, seed=5))
    path = tmp_path / "old.safetensors"
    safetensors.torch.save_file({k: v for k, v in whole.items() if not k.endswith("num_batches_tracked")}, path)
    model = build_model("resnet18", 2)
    load_weights_file(model, path)
    assert same_state(copied_state(model), whole)


def test_other_numbers_of_classes_and_other_networks_are_refused(tmp_path: Path) -> None:
    imagenet = saved(build_model("resnet18", 10), tmp_path / "imagenet.safetensors")
    model = build_model("resnet18", 2)
    before = copied_state(model)
    with pytest.raises(RunError, match=r"imagenet\.safetensors is for 10 classes, this network has 2 \(fc\.bias\)"):
        load_weights_file(model, imagenet)
    with pytest.raises(RunError, match=r"does not fit this network: .*; .* \(and \d+ more\)"):
        load_weights_file(build_model("resnet50", 2), imagenet)
    assert same_state(copied_state(model), before)


def test_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"what")
    for name in ("weights.safetensors", "absent.safetensors"):
        with pytest.raises(RunError, match=name):
            load_weights_file(build_model("resnet18", 2), tmp_path / name)


def test_file_in_half_precision_is_taken(tmp_path: Path) -> None:
    whole = copied_state(build_model("resnet18-narrow", 2, seed=5))
    path = tmp_path / "half.safetensors"
    halves = {name: value.half() if value.is_floating_point() else value for name, value in whole.items()}
    safetensors.torch.save_file(halves, path)
    model = build_model("resnet18-narrow", 2)
    load_weights_file(model, path)
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
        load_weights_file(model, path)
    assert same_state(copied_state(model), before)


def test_a_non_finite_optimizer_or_average_cannot_be_resumed() -> None:
    weights = {"layer.weight": torch.zeros(2)}
    bad = torch.tensor([0.0, float("nan")])
    states = {
        "the optimizer's momentum_buffer of parameter 0, 1 of 2": TrainState(
            TrainHistory(), {0: {"momentum_buffer": bad, "step": torch.tensor(3.0)}}
        ),
        "average of layer.weight, 1 of 2": TrainState(
            TrainHistory(), None, average=WeightAverageState({"layer.weight": bad}, 1)
        ),
    }
    for words, state in states.items():
        with pytest.raises(RunError, match=words):
            require_trainable(Checkpoint(Path("last.safetensors"), None, state, weights))
