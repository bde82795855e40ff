"""``ltrain models``, and the names that options take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_models.networks.registry import model_names


@pytest.mark.parametrize("command", [(), ("kfold",)])
def test_an_unknown_network_is_refused_with_the_most_similar_name(
    command: tuple[str, ...], ltrain: Callable, error_of: Callable, caches: Path
) -> None:
    message = error_of(ltrain(*command, "--cache", caches, "--model", "resnet81"), 2)
    assert "resnet81" in message
    assert "resnet18" in message


def test_table(ltrain: Callable) -> None:
    result = ltrain("models")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(model_names())]] == list(model_names())
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line}
    assert "11.18 M 1.81 G 56 28 14 7 A B" in rows["resnet18"]
    assert "58.15 M 45.69 G 112 56 28 14 A" in rows["resnet152-no-maxpool"]
    assert "23.71 M 3.66 G 56 28 14 7 B" in rows["resnet18-concat"]
    assert "224" in lines[-1]


def test_json_at_another_size(ltrain: Callable, json_of: Callable) -> None:
    rows = {row["name"]: row for row in json_of(ltrain("models", "--size", 128, "--json"))}
    assert tuple(rows) == model_names()
    row = rows["resnet50-report-b"]
    assert row["parameters"] == rows["resnet50"]["parameters"] == 23_512_130
    assert row["multiply_adds"] == rows["resnet50"]["multiply_adds"]
    assert row["stage_sizes_px"] == [32, 16, 8, 4]
    assert row["size_px"] == 128
    assert row["reports"] == ["B"]
    assert "no ReLU" in row["description"]


@pytest.mark.parametrize("size", [31, 5000, "x"])
def test_wrong_size(size: object, ltrain: Callable, error_of: Callable) -> None:
    assert str(size) in error_of(ltrain("models", "--size", size), 2)
