from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.predict import predict_probabilities
from leukemia_models.evaluation.predictions import Predictions
from leukemia_models.training.batchnorm_report import BatchNormReport, BatchNormScores, compare_batchnorm
from leukemia_models.training.batchnorm_statistics import BatchNormStatistics, reestimate_batchnorm, running_statistics

from ..fakes import CPU, NORMALIZATION, copied_state, fake_batch, same_state, tiny_network

GOOD = BatchNormScores(loss=0.4, accuracy=0.9, balanced_accuracy=0.85, share_positive=0.62, one_class_warning=None)
BAD = BatchNormScores(
    loss=3.25, accuracy=0.7, balanced_accuracy=0.5, share_positive=1.0, one_class_warning="all answers are 'all'"
)


def report(mode: str, running: BatchNormScores, reestimated: BatchNormScores | None) -> BatchNormReport:
    return BatchNormReport(
        mode=mode, judged_on="valid", num_judged=120, num_images=2000, running=running, reestimated=reestimated
    )


@pytest.mark.parametrize(
    ("mode", "running", "reestimated", "better", "chosen"),
    [
        ("auto", BAD, GOOD, "reestimated", "reestimated"),
        ("auto", GOOD, BAD, "running", "running"),
        ("auto", GOOD, GOOD, "running", "running"),
        ("running", BAD, GOOD, "reestimated", "running"),
        ("reestimated", GOOD, BAD, "running", "reestimated"),
        ("reestimated", GOOD, None, None, "running"),
        # Cross-entropy decides, not accuracy.
        ("auto", GOOD, replace(GOOD, loss=0.39, accuracy=0.6), "reestimated", "reestimated"),
    ],
)
def test_choice(
    mode: str, running: BatchNormScores, reestimated: BatchNormScores | None, better: str | None, chosen: str
) -> None:
    found = report(mode, running, reestimated)
    assert (found.better, found.chosen) == (better, chosen)
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (stored["better"], stored["chosen"], stored["mode"]) == (better, chosen, mode)
    assert stored["running"]["loss"] == running.loss


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    positive = np.array([0.1, 0.6, 0.7, 0.8, 0.4])
    scores = BatchNormScores.of(Predictions(np.arange(5), labels, np.log(np.stack([1 - positive, positive], axis=1))))
    assert scores.loss == pytest.approx(log_loss(labels, positive))
    assert scores.accuracy == 3 / 5
    assert scores.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.share_positive == 3 / 5
    assert scores.one_class_warning is None
    always = Predictions(np.arange(5), labels, np.log(np.full((5, 2), (0.2, 0.8))))
    assert "'blast'" in (BatchNormScores.of(always, ("normal", "blast")).one_class_warning or "")


def test_text_for_people() -> None:
    line, warning = report("auto", BAD, GOOD).text().splitlines()
    assert line == (
        "BatchNorm: the re-estimated statistics are used (auto). On 120 images (valid), running -> re-estimated from "
        "2,000 training images: cross-entropy 3.2500 -> 0.4000, accuracy 0.700 -> 0.900, balanced accuracy 0.500 -> "
        "0.850, share of 'all' 1.000 -> 0.620"
    )
    assert warning == "With running statistics all answers are 'all'"
    assert "nothing to re-estimate" in report("auto", GOOD, None).text()
    one_class = replace(GOOD, balanced_accuracy=None)
    assert "balanced" not in report("running", one_class, one_class).text()


def test_comparison_judges_with_either_and_changes_nothing() -> None:
    model = tiny_network()
    with torch.no_grad():
        model[1].running_mean.fill_(50.0)
    before = copied_state(model)
    statistics = reestimate_batchnorm(model, [fake_batch(16, 1)], NORMALIZATION, CPU)
    seen = []

    def predict() -> Predictions:
        seen.append(running_statistics(model).buffers["1.running_mean"])
        return predict_probabilities(model, [fake_batch(12, 2)], NORMALIZATION, CPU)

    found = compare_batchnorm(model, statistics, predict, mode="auto", judged_on="valid")
    assert torch.equal(seen[0], before["1.running_mean"])
    assert torch.equal(seen[1], statistics.buffers["1.running_mean"])
    assert same_state(copied_state(model), before)
    assert (found.num_judged, found.num_images, found.judged_on) == (12, 16, "valid")
    assert found.reestimated is not None
    assert found.running.loss != found.reestimated.loss
    statistics.apply(model)
    assert found.reestimated.loss == predict().loss


def test_network_without_batchnorm_is_evaluated_once() -> None:
    model, calls = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), []

    def predict() -> Predictions:
        calls.append(1)
        return predict_probabilities(model, [fake_batch(12, 2)], NORMALIZATION, CPU)

    found = compare_batchnorm(model, BatchNormStatistics({}, 0), predict, mode="reestimated", judged_on="valid")
    assert len(calls) == 1
    assert found.reestimated is None
    assert found.chosen == "running"


def test_unknown_mode_is_refused_before_anything_is_evaluated() -> None:
    with pytest.raises(UsageError, match="known modes: auto, running, reestimated"):
        compare_batchnorm(
            tiny_network(), BatchNormStatistics({}, 0), lambda: pytest.fail("judged"), mode="best", judged_on="valid"
        )
