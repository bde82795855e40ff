"""Two processes train like one. They run :mod:`rank_program`, once for all tests."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leukemia_models.devices.distributed import SINGLE

from ...forked_python import forked_python
from ..fakes import FakeBatch, same_state
from ..rank_program import (
    APART,
    EVERYTHING,
    FAILURES,
    LAYER_CASES,
    SETTINGS,
    STATE_AFTER,
    SeveralShares,
    layer_inputs,
    predicted,
    resumed,
    several_shares,
    trained,
    trained_by_shares,
)

ROOT = Path(__file__).parents[3]
TIME_LIMIT_S = 120
pytestmark = pytest.mark.slow


def run_two(folder: Path, end: str) -> list[tuple[int, str]]:
    """Exit code and output of each of two ranks."""
    command = [*forked_python(), "-m", "tests.leukemia_models.rank_program", str(folder), end]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for environment in ({**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"} for rank in (0, 1))
    ]
    try:
        outputs = [process.communicate(timeout=TIME_LIMIT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    return list(zip(codes, outputs, strict=True))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    """Folder with the results of two ranks; and the exit code and output of each."""
    folder = tmp_path_factory.mktemp("ranks")
    return folder, run_two(folder, "vanishing")


@pytest.fixture(scope="module")
def ranks_found(ended: tuple[Path, list[tuple[int, str]]]) -> list[dict[str, Any]]:
    """Results of each of two ranks."""
    folder, said = ended
    files = [folder / f"rank{rank}.pt" for rank in (0, 1)]
    assert all(file.exists() for file in files), said
    return [torch.load(file, weights_only=False) for file in files]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The same training by one process with whole batches."""
    torch.set_num_threads(1)
    return trained(SINGLE)


def assert_same_run(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for one, other in zip(found["records"], expected["records"], strict=True):
        for name in one.keys() - {"seconds", "images_per_s", "data_wait_share", "size_px"}:
            assert one[name] == pytest.approx(other[name], rel=1e-5), name
    assert list(found["weights"]) == list(expected["weights"])
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["trained", "unpadded"])
def test_two_ranks_train_like_one_process(ranks_found: list[dict], alone: dict, name: str) -> None:
    for found in ranks_found:
        assert_same_run(found[name], alone)
        assert [step[:2] + step[3:] for step in found[name]["steps"]] == [
            step[:2] + step[3:] for step in alone["steps"]
        ]
    # Each observer has the loss of its own rows: of 7 the first four, and of 3 the first two.
    for first, second, (*_, loss, size) in zip(
        *(found[name]["steps"] for found in ranks_found), alone["steps"], strict=True
    ):
        num_first = -(-size // 2)
        assert (first[2] * num_first + second[2] * (size - num_first)) / size == pytest.approx(loss, rel=1e-5)


def test_loss_weights_clipping_and_average_are_those_of_the_whole_batch(ranks_found: list[dict]) -> None:
    expected = trained(SINGLE, settings=EVERYTHING)
    # Early stopping: two epochs of three.
    assert len(expected["records"]) == 2
    for found in (rank["everything"] for rank in ranks_found):
        assert_same_run(found, expected)
        average, whole = (run["saved"][0].average for run in (found, expected))
        assert average.num_updates == whole.num_updates
        for name, value in whole.tensors.items():
            torch.testing.assert_close(average.tensors[name], value, rtol=1e-5, atol=1e-6)


def test_ranks_without_synchronised_batchnorm_train_like_one_process_that_accumulates(ranks_found: list[dict]) -> None:
    expected = trained_by_shares(SINGLE, 2, APART)
    for found in (rank["apart"] for rank in ranks_found):
        assert_same_run(found, expected)
        assert [step[3] for step in found["steps"]] == [step[3] for step in expected["steps"]]
    first, second = (rank["apart"]["weights"] for rank in ranks_found)
    assert same_state(first, second)  # running statistics too


def test_micro_batches_of_two_ranks_train_like_as_many_of_one(ranks_found: list[dict]) -> None:
    """Class weights, clipping and average included; one micro-batch of the smallest batch is empty."""
    expected = trained_by_shares(SINGLE, 4, replace(EVERYTHING, sync_batchnorm=False))
    for found in (rank["shares apart"] for rank in ranks_found):
        assert_same_run(found, expected)


def test_synchronised_micro_batches_are_normalised_over_the_ranks_one_after_the_other(ranks_found: list[dict]) -> None:
    quarters = several_shares(SINGLE, 4)
    # Values of both ranks.
    pairs = [[joined(step[number], step[number + 2]) for number in (0, 1)] for step in quarters.batches]
    settings = replace(SETTINGS, accumulate=2)
    expected = trained(SINGLE, settings=settings, train_source=SeveralShares(pairs))
    for found in (rank["shares together"] for rank in ranks_found):
        assert_same_run(found, expected)


def joined(first: FakeBatch, second: FakeBatch) -> FakeBatch:
    return FakeBatch(*(torch.cat(tensors) for tensors in zip(vars(first).values(), vars(second).values(), strict=True)))


def test_all_ranks_have_the_same_history_weights_and_buffers(ranks_found: list[dict]) -> None:
    first, second = (found["trained"] for found in ranks_found)
    assert first["records"] == second["records"]  # the times too
    assert same_state(first["weights"], second["weights"])


def test_state_that_one_rank_wants_is_sent_to_all_and_is_complete(ranks_found: list[dict], alone: dict) -> None:
    (first, _), (second, _) = (found["trained"]["saved"] for found in ranks_found)
    progress, expected = first.progress, alone["saved"][0].progress
    assert first.progress == second.progress
    assert (first.epochs_done + 1, progress.steps_done) == STATE_AFTER
    assert (progress.num_correct, progress.num_samples) == (expected.num_correct, expected.num_samples)
    assert progress.loss_sum == pytest.approx(expected.loss_sum, rel=1e-5)


def test_two_ranks_resume_inside_an_epoch_bit_by_bit(ranks_found: list[dict]) -> None:
    for found in ranks_found:
        assert same_state(found["resumed"]["weights"], found["trained"]["weights"])
        for one, other in zip(found["resumed"]["records"], found["trained"]["records"], strict=True):
            assert (one["train_loss"], one["train_accuracy"]) == (other["train_loss"], other["train_accuracy"])


def test_a_single_process_resumes_from_the_state_of_two_ranks(ranks_found: list[dict], alone: dict) -> None:
    assert_same_run(resumed(SINGLE, ranks_found[0]["trained"]), alone)


def test_predictions_of_all_ranks_come_in_the_order_of_one_process(ranks_found: list[dict]) -> None:
    expected = predicted(SINGLE)
    for found in ranks_found:
        assert found["predicted"]["indices_N"].tolist() == expected["indices_N"].tolist()
        assert found["predicted"]["labels_N"].tolist() == expected["labels_N"].tolist()
        np.testing.assert_allclose(
            found["predicted"]["log_probabilities_NK"], expected["log_probabilities_NK"], rtol=1e-6
        )


@pytest.mark.parametrize("name", FAILURES)
def test_failure_of_one_rank_stops_all_with_its_message(ranks_found: list[dict], name: str) -> None:
    (kind, message, _), (own_kind, own_message, _) = (found["failed"][name] for found in ranks_found)
    expected = {
        "label": ("RunError", r"epoch 1, step 1: labels from -1"),
        "loss": ("DivergenceError", "the training loss became nan in epoch 2, step 2"),  # step 1 is left out
        "augmentation": ("ValueError", "no such augmentation"),
        "stream": ("CacheError", "shard 7 is gone"),
        "validation": ("CacheError", "shard 7 is gone"),
        "saving": ("OSError", "No space left on device"),
    }[name]
    assert own_kind == expected[0]
    assert expected[1] in own_message
    # Advice on divergence is given for its kind.
    assert kind == ("DivergenceError" if name == "loss" else "RunError")
    if name == "label":
        assert message == own_message  # all ranks have it themselves
    else:
        assert message == f"rank 1 of 2 failed: {own_message}"


def test_a_non_finite_loss_of_one_rank_ends_the_others_at_their_next_step(ranks_found: list[dict]) -> None:
    """Rank 1 does not take the step; rank 0 takes it, and learns of it before the forward pass of the next one."""
    (_, _, num_steps), (_, _, own_num_steps) = (found["failed"]["loss"] for found in ranks_found)
    assert num_steps == own_num_steps + 1
    # With synchronised BatchNorm both have it themselves.
    first, second = (found["failed together"] for found in ranks_found)
    assert first == second
    assert first[0] == "DivergenceError"


@pytest.mark.parametrize("class_weights", [None, (1.0, 3.0)])
@pytest.mark.parametrize("micro_batches_per_rank", [1, 2])
def test_a_step_has_one_exchange_besides_that_of_the_gradients(
    ranks_found: list[dict], micro_batches_per_rank: int, class_weights: tuple[float, ...] | None
) -> None:
    for found in ranks_found:
        between = found["exchanges"][micro_batches_per_rank, class_weights]
        # Two steps of each of three epochs come after another one.
        assert between == [{"all_gather": 1}] * 6


def test_all_know_the_text_of_the_first(ranks_found: list[dict]) -> None:
    assert [found["told"] for found in ranks_found] == ["grün\udc80"] * 2
    assert [found["handed out"] for found in ranks_found] == [bytes(range(256))] * 2
    assert [found["says first"] for found in ranks_found] == [[True, False]] * 2


def test_ranks_still_understand_each_other_after_failures(ranks_found: list[dict]) -> None:
    assert [found["after failures"] for found in ranks_found] == [[3], [3]]


@pytest.mark.parametrize("case", range(len(LAYER_CASES)), ids=[str(case) for case in LAYER_CASES])
def test_synchronized_layer_equals_batchnorm_on_the_whole_batch(ranks_found: list[dict], case: int) -> None:
    rows_W, row, options = LAYER_CASES[case]
    layer = (nn.BatchNorm1d if len(row) == 1 else nn.BatchNorm2d)(row[0], **options)
    features, gradients = layer_inputs(rows_W, row)
    leaf = features.clone().requires_grad_()
    layer(features)
    output = layer(leaf)
    output.backward(gradients)

    found = [rank["layers"][case] for rank in ranks_found]
    torch.testing.assert_close(torch.cat([one["output"] for one in found]), output.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([one["grad"] for one in found]), leaf.grad, rtol=1e-4, atol=1e-6)
    for name, parameter in layer.named_parameters():
        summed = sum(one[f"grad.{name}"] for one in found)
        torch.testing.assert_close(summed, parameter.grad, rtol=1e-4, atol=2e-5)
    for name, value in layer.state_dict().items():
        assert torch.equal(found[0][name], found[1][name])
        torch.testing.assert_close(found[0][name], value, rtol=1e-5, atol=1e-6)
    if layer.track_running_stats:
        # Rank 0 evaluated while rank 1 did not: nothing was sent.
        expected = layer.eval()(features[: rows_W[0]]).detach()
        torch.testing.assert_close(found[0]["judged"], expected, rtol=1e-5, atol=1e-5)


def test_rank_that_vanishes_ends_the_others(ended: tuple[Path, list[tuple[int, str]]]) -> None:
    _, [(code, output), (own_code, _)] = ended
    assert own_code == 9
    assert code == 1
    assert "RunError: rank 0 of 2 lost contact with another one" in output


def test_rank_that_fails_inside_a_step_names_the_cause_and_ends_the_others(tmp_path: Path) -> None:
    started_s = time.monotonic()
    [(code, output), (own_code, own_output)] = run_two(tmp_path, "failing")
    assert (code, own_code) == (1, 1)
    assert "ValueError: no such augmentation" in own_output
    assert "RunError: rank 0 of 2 lost contact with another one, which failed or was stopped: see its message" in output
    # Neither waits for the other's time-out, half an hour.
    assert time.monotonic() - started_s < 60
