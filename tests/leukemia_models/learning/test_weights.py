from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from leukemia_data.errors import RunError
from leukemia_models.learning.checkpoint import load_weights_file
from leukemia_models.networks.registry import build_model

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
