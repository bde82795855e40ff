"""``ltrain`` on several machines, which are folders here: each has its agent of torchrun and its copy of the cache."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from leukemia_models.networks.registry import build_model
from leukemia_models.training.checkpoint import load_checkpoint

from .nodes import TIME_LIMIT_S, MeetingPlace, Node
from .runs import history_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch knows no process groups"),
]
EPOCHS = 7


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    """Start a node; whatever is left of it at the end is ended."""
    nodes: list[Node] = []

    def started(*arguments: object, **options: object) -> Node:
        nodes.append(Node(*arguments, **options))
        return nodes[-1]

    yield started
    for node in nodes:
        node.lose_power()


def without_cache(options: list[object]) -> list[object]:
    place = options.index("--cache")
    return options[:place] + options[place + 2 :]


def test_a_lost_node_leaves_a_run_that_goes_on_by_itself_with_fewer_processes(
    tmp_path: Path, train_options: list[object], caches: Path, ltrain: Callable, start: Callable
) -> None:
    """The same steps as one process that was never stopped.

    The weights move a little only, where training is not chaotic yet: sums over two processes round otherwise, and a
    ReLU near 0 then opens or stays closed. One process with one thread and with two differs by 1.5 % here (and by 15 %
    at 50 times the rate), another order of the samples by 80 %. Small networks are compared to the last digits in
    test_two_ranks.
    """
    options = [
        *without_cache(train_options),
        "--epochs",
        EPOCHS,
        "--lr",
        1e-5,
        "--sync-batchnorm",
        "--precision",
        "fp32",
    ]
    run, alone = tmp_path / "run", tmp_path / "alone"
    elastic = [*options, "--out", run, "--save-minutes", 0]
    # Caches in other places, named by option and by environment.
    places = [Path(shutil.copytree(caches, tmp_path / name / f"cells-{name}")) for name in ("one", "two")]
    meeting = MeetingPlace()
    first = start(tmp_path / "one", meeting, "1:2", *elastic, "--cache", "cells-one", max_restarts=2)
    second = start(tmp_path / "two", meeting, "1:2", *elastic, max_restarts=2, LTRAIN_CACHE=str(places[1]))
    wait_for_epochs(2, run, first)
    second.lose_power()
    before = history_rows(run)[:2]
    assert len(history_rows(run)) < EPOCHS
    assert first.wait() == 0, first.said
    # Either may have the first rank, which speaks for both.
    assert ", 2 processes" in first.said.partition("going on after")[0] + second.said
    assert ", 2 processes" not in first.said.partition("going on after")[2]
    rows = history_rows(run)
    assert rows[:2] == before  # their seconds, too: not trained again
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, EPOCHS + 1)]

    assert ltrain(*options, "--cache", caches, "--out", alone).exit_code == 0
    found, expected = (load_checkpoint(folder / "last.safetensors") for folder in (run, alone))
    begun = build_model("resnet18-narrow", 2, seed=0)
    names = [name for name, _ in begun.named_parameters()]
    first_P, found_P, expected_P = (
        torch.cat([weights[name].flatten() for name in names])
        for weights in (begun.state_dict(), found.training_weights, expected.training_weights)
    )
    error = ((found_P - expected_P).norm() / (expected_P - first_P).norm()).item()
    assert error < 0.1
    for row, other in zip(rows, history_rows(alone), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-3)


def wait_for_epochs(number: int, run: Path, node: Node) -> None:
    deadline_s = time.monotonic() + TIME_LIMIT_S
    while not (run / "history.csv").exists() or len(history_rows(run)) < number:
        assert node.process.poll() is None, node.said
        assert time.monotonic() < deadline_s, node.said
        time.sleep(0.02)
