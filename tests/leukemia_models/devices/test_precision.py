"""Which precision a device computes in, and what a network computes in it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from leukemia_data.errors import UsageError
from leukemia_models.devices import precision
from leukemia_models.devices.distributed import SINGLE, Ranks
from leukemia_models.devices.precision import (
    AMP,
    AUTO,
    BF16,
    FP16,
    FP32,
    all_compute_in_bf16,
    autocast,
    computes_in_bf16,
    convolutions,
    current,
    decide_precision,
    gradient_scaler,
    has_precision,
)
from leukemia_models.networks.registry import build_model
from leukemia_models.training.optimizers import OptimizerSettings, build_optimizer
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings

from ..fakes import CPU, copied_state, fake_source, same_state
from ..small_training import Recorder, train, without_times

CUDA, MPS = torch.device("cuda", 1), torch.device("mps")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({}, False),
    ],
)
def test_cpus_compute_in_bf16_with_avx512_bf16_or_amx(
    found: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert computes_in_bf16(CPU) is expected
    assert decide_precision(AUTO, CPU) == (BF16 if expected else FP32)
    assert has_precision(BF16, CPU) is expected


def test_releases_of_torch_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert computes_in_bf16(CPU)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not computes_in_bf16(CPU)


@pytest.mark.parametrize("has_units", [True, False])
def test_each_cuda_device_is_asked_for_itself_and_never_for_emulation(
    has_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        asked.append(device)
        yield
        asked.append("left")

    def is_supported(*, including_emulation: bool) -> bool:
        asked.append(including_emulation)
        return has_units

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert decide_precision(AUTO, CUDA) == (BF16 if has_units else FP32)
    assert asked == [CUDA, False, "left"]
    assert decide_precision(AMP, CUDA) == (BF16 if has_units else FP16)
    assert decide_precision(FP16, CUDA) == FP16


@pytest.mark.usefixtures("without_bf16")
@pytest.mark.parametrize(("name", "device"), [(BF16, CPU), (BF16, MPS), (FP16, CPU), (FP16, MPS)])
def test_emulation_is_refused(name: str, device: torch.device) -> None:
    with pytest.raises(UsageError, match=f"--precision {name}: .*{device}.*--precision fp32"):
        decide_precision(name, device)


def test_unknown_precisions_are_refused() -> None:
    for make in (lambda: decide_precision("fp23", CPU), lambda: TrainSettings(epochs=1, precision="fp23")):
        with pytest.raises(UsageError, match=r"fp23.*did you mean 'fp32'"):
            make()


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: False)


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that lacks the units emulates them, with the same numbers."""
    monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda: True)


class WithAnother(Ranks):
    """The first of two ranks; the device of the other computes in 32 bits alone."""

    def gather(self, values: Tensor) -> Tensor:
        return torch.stack([values, torch.zeros_like(values)])


@pytest.mark.usefixtures("with_bf16")
def test_several_processes_take_what_the_devices_of_all_compute_in() -> None:
    """One in 16 bits and one in 32 would train on each other's gradients."""
    assert all_compute_in_bf16(CPU, SINGLE)
    has_bf16 = all_compute_in_bf16(CPU, WithAnother(0, 2))
    assert not has_bf16
    assert TrainSettings(epochs=1, precision=AUTO).decided(CPU, has_bf16=has_bf16).precision == FP32
    with pytest.raises(UsageError, match="--precision bf16: the device of another process has no arithmetic of 16"):
        decide_precision(BF16, CPU, has_bf16=has_bf16)


@pytest.mark.parametrize("device", [CUDA, CPU, torch.device("mps")], ids=str)
@pytest.mark.parametrize(("name", "has_fused"), [("sgd", True), ("adamw", True), ("ranger21", False)])
def test_updates_are_fused_where_device_and_optimizer_have_them(
    name: str, has_fused: bool, device: torch.device
) -> None:
    schedule = ScheduleSettings(name="constant" if name == "ranger21" else "cosine")
    settings = TrainSettings(epochs=1, optimizer=OptimizerSettings(name=name), schedule=schedule)
    assert settings.left_to_device == ("cudnn_benchmark", "fused")
    decided = settings.decided(device)
    assert (decided.fused, decided.left_to_device) == (has_fused and device.type != "mps", ())
    assert decided.cudnn_benchmark == (device.type == "cuda")


def test_updates_are_not_fused_where_gradients_are_scaled() -> None:
    assert TrainSettings(epochs=1, precision=FP16).decided(CUDA).fused is False


@pytest.mark.usefixtures("with_bf16")
def test_settings_are_decided_once() -> None:
    decided = TrainSettings(epochs=1, precision=AUTO).decided(CPU)
    assert (decided.precision, decided.cudnn_benchmark, decided.fused) == (BF16, False, True)
    assert decided.decided(CPU) == decided
    assert TrainSettings.from_dict(decided.to_dict()) == decided


def test_what_version_01_began_stays_as_it_was() -> None:
    values = TrainSettings(epochs=1).to_dict()
    for name in ("precision", "tf32", "cudnn_benchmark", "fused", "precision_changes"):
        del values[name]
    for amp, expected in ((False, FP32), (True, AMP)):
        found = TrainSettings.from_dict({**values, "amp": amp})
        assert found.decided(CPU) == found
        assert (found.precision, found.cudnn_benchmark, found.fused, found.tf32) == (expected, False, False, True)
    assert not autocast(CPU, AMP)._enabled
    assert not gradient_scaler(CPU, AMP).is_enabled()


def test_flags_of_cuda_hold_for_the_block_alone() -> None:
    cudnn = torch.backends.cudnn
    name = "fp32_precision" if hasattr(cudnn, "conv") else "allow_tf32"
    flags = cudnn.conv if hasattr(cudnn, "conv") else cudnn
    before = getattr(flags, name), cudnn.benchmark
    with convolutions(CUDA, tf32=False, cudnn_benchmark=True):
        assert (getattr(flags, name) in ("ieee", False), cudnn.benchmark) == (True, True)
    assert (getattr(flags, name), cudnn.benchmark) == before
    with convolutions(CPU, tf32=False, cudnn_benchmark=True):
        assert (getattr(flags, name), cudnn.benchmark) == before


def seen_dtypes(model: nn.Module, images_BCHW: Tensor, name: str) -> dict[str, torch.dtype]:
    dtypes: dict[str, torch.dtype] = {}
    for path in ("conv1", "layer4", "avgpool", "fc"):
        model.get_submodule(path).register_forward_hook(
            lambda module, given, output, path=path: dtypes.update({path: output.dtype})
        )
    with autocast(CPU, name), torch.no_grad():
        model(images_BCHW)
    return dtypes


def test_pooling_and_classifier_stay_in_32_bits() -> None:
    """Rounded to 16 bits, the scores of many images are equal."""
    model, images = build_model("resnet18-narrow", 2).eval(), torch.rand(300, 3, 32, 32)
    dtypes = seen_dtypes(model, images, BF16)
    assert dtypes == dict.fromkeys(("avgpool", "fc"), torch.float32) | dict.fromkeys(
        ("conv1", "layer4"), torch.bfloat16
    )
    with autocast(CPU, BF16), torch.no_grad():
        scores = model(images)[:, 1]
    assert len(scores.unique()) > 1.2 * len(scores.bfloat16().unique())


def test_the_classifier_in_32_bits_changes_nothing_without_autocast() -> None:
    model, images = build_model("resnet18-narrow", 2).eval(), torch.rand(4, 3, 32, 32)
    features: list[Tensor] = []
    model.layer4.register_forward_hook(lambda module, given, output: features.append(output))
    logits = model(images)
    assert torch.equal(logits, model.fc(model.avgpool(features[0]).flatten(1)))


@pytest.mark.usefixtures("without_bf16")
def test_training_refuses_emulation() -> None:
    with pytest.raises(UsageError, match="--precision bf16"):
        train(build_model("resnet18-narrow", 2), fake_source(4), precision=BF16)


@pytest.mark.usefixtures("with_bf16")
def test_a_run_in_16_bits_resumes_bit_by_bit_also_within_an_epoch() -> None:
    source, valid = fake_source(8, 8, 5), fake_source(6)
    whole = build_model("resnet18-narrow", 2, seed=3)
    recorder = Recorder(whole, state_after=((2, 2),))
    history = train(whole, source, valid, epochs=3, observer=recorder, precision=AUTO)
    in_32_bits = build_model("resnet18-narrow", 2, seed=3)
    train(in_32_bits, source, valid, epochs=3)
    assert not same_state(copied_state(whole), copied_state(in_32_bits))
    assert all(tensor.dtype == torch.float32 for tensor in whole.parameters())
    starts = [(recorder.states[0], recorder.weights[0]), recorder.saved[0]]
    for state, weights in copy.deepcopy(starts):
        resumed = build_model("resnet18-narrow", 2, seed=99)
        resumed.load_state_dict(weights)
        again = train(resumed, source, valid, epochs=3, start=state, precision=BF16)
        assert same_state(copied_state(resumed), recorder.weights[-1])
        assert without_times(again) == without_times(history)


@pytest.mark.parametrize(("name", "expected"), [("sgd", True), ("adamw", True), ("ranger21", False)])
def test_fused_updates_reach_the_optimizers_that_have_them(name: str, expected: bool) -> None:
    settings = OptimizerSettings(name=name)
    for fused in (True, False):
        optimizer = build_optimizer(build_model("resnet18-narrow", 2), settings, 10, fused=fused)
        assert bool(optimizer.defaults.get("fused")) is (fused and expected)


def test_unfused_and_fused_updates_agree() -> None:
    models = [build_model("resnet18-narrow", 2, seed=3) for _ in range(2)]
    for model, fused in zip(models, (True, False), strict=True):
        train(model, fake_source(8, 8), epochs=1, fused=fused)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert replace(TrainSettings(epochs=1), fused=True).decided(CPU).fused


def test_a_chosen_cuda_device_is_the_current_one_for_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[object] = []

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        entered.append(chosen)
        yield
        entered.append("left")

    monkeypatch.setattr(torch.cuda, "device", device)
    with current(CUDA):
        assert entered == [CUDA]
    assert entered == [CUDA, "left"]
    with current(CPU), current(MPS):
        assert entered == [CUDA, "left"]


@pytest.mark.usefixtures("with_bf16")
def test_images_too_small_for_16_bits_on_a_cpu() -> None:
    assert [decide_precision(AUTO, CPU, size_px=size_px) for size_px in (16, 31, 32, 224)] == [FP32, FP32, BF16, BF16]
    with pytest.raises(UsageError, match=r"images below 32 px, and these have 16 px; use --precision fp32"):
        decide_precision(BF16, CPU, size_px=16)
    assert decide_precision(FP32, CPU, size_px=16) == FP32


@pytest.mark.parametrize("size_px", [32, 33, 64])
def test_gradients_in_16_bits_are_as_long_as_those_in_32(size_px: int) -> None:
    """Also if the memory for them held NaN before, as it does where parts of them are left uninitialised."""
    images, labels = torch.rand(8, 3, size_px, size_px), torch.tensor([0, 1] * 4)
    gradients = []
    for name in (FP32, BF16):
        model = build_model("resnet18-narrow", 2, seed=1).to(memory_format=torch.channels_last)
        dirty = [torch.full((num_values,), math.nan) for num_values in (1_000, 50_000, 300_000, 2_000_000)]
        del dirty
        with autocast(CPU, name):
            logits = model(images.to(memory_format=torch.channels_last))
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for exact, rounded in zip(*gradients, strict=True):
        # Rounding through twenty layers changes a gradient, but not its length.
        assert 0.5 < rounded.norm() / exact.norm() < 2
