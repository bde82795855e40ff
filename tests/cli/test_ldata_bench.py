"""``ldata bench``: it measures something plausible; how fast, is for benchmarks to say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leukemia_models.devices import precision
from leukemia_models.experiments import stream_bench

from ..noted_device import noting_current

OPTIONS = ("--size", 48, "--batch-size", 8, "--seconds", 0.1, "--device", "cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_figures_are_there_and_fit_together(caches: Path, ldata: Callable, json_of: Callable) -> None:
    said = json_of(ldata("bench", caches, *OPTIONS, "--num-threads", 1, "--json"))
    assert said["num_samples"] == 32
    assert said["num_threads"] == 1
    rates = [said[f"{name}_images_per_s"] for name in ("ceiling", "stream", "augment", "train")]
    assert all(rate > 0 for rate in rates)
    assert said["epoch_s"] == pytest.approx(32 / said["train_images_per_s"])
    assert 0 <= said["epoch_wait_s"] <= said["epoch_s"]


def test_the_step_is_measured_in_both_precisions_where_the_device_has_them(
    caches: Path, ldata: Callable, json_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has_bf16, names in ((True, ["fp32", "bf16"]), (False, ["fp32"])):
        monkeypatch.setattr(precision, "_cpu_computes_in_bf16", lambda has=has_bf16: has)
        said = json_of(ldata("bench", caches, *OPTIONS, "--model", "resnet18-narrow", "--json"))
        assert list(said["images_per_s_by_precision"]) == names
        assert said["precision"] == names[-1]
        assert said["train_images_per_s"] == said["images_per_s_by_precision"][names[-1]]


def test_text_says_what_an_epoch_waits(caches: Path, ldata: Callable) -> None:
    result = ldata("bench", caches, *OPTIONS, "--augment", "report-b")
    assert result.exit_code == 0, result.output
    for words in ("memory copies", "stream of uint8 batches", "augmentation report-b", "training resnet18", "waits"):
        assert words in result.stdout


def test_wrong_requests(caches: Path, ldata: Callable, error_of: Callable) -> None:
    assert "fewer than --batch-size 64" in error_of(ldata("bench", caches, "--size", 48, "--device", "cpu"), 2)
    assert "report-z" in error_of(ldata("bench", caches, *OPTIONS, "--augment", "report-z"), 2)
    assert "49 px" in error_of(ldata("bench", caches, "--size", 49), 1)


def test_the_device_is_the_current_one_while_it_is_measured(
    caches: Path, ldata: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    measure = stream_bench.BatchStream.epoch

    def epoch(stream: object, *args: object) -> object:
        calls.append("epoch")
        return measure(stream, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(stream_bench, "current", noting_current(calls))
    monkeypatch.setattr(stream_bench.BatchStream, "epoch", epoch)
    assert ldata("bench", caches, *OPTIONS, "--model", "resnet18-narrow").exit_code == 0
    assert calls[0] == torch.device("cpu")
    assert calls[-1] == "left"
    assert set(calls[1:-1]) == {"epoch"}
