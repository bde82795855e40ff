"""One custom object of each kind, registered from outside, works like the shipped ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import fbeta_score
from torch import Tensor, nn

from leukemia_data.errors import UsageError
from leukemia_models.evaluation.bootstrap import BootstrapSettings, paired_bootstrap, subject_bootstrap
from leukemia_models.evaluation.classification import classification_metrics
from leukemia_models.evaluation.evaluated_samples import EvaluatedSamples
from leukemia_models.evaluation.metrics import METRICS, Metric, metric_title
from leukemia_models.networks.registry import NETWORKS, Network, build_model, describe_models, model_cost, model_names
from leukemia_models.training.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from leukemia_models.training.checkpoint_file import checkpoint_room
from leukemia_models.training.named_options import BETWEEN
from leukemia_models.training.optimizers import (
    OPTIMIZERS,
    OptimizerKind,
    OptimizerSettings,
    build_optimizer,
    register_optimizer,
)
from leukemia_models.training.plan_file import load_plan
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import SCHEDULES, Moment, ScheduleKind, ScheduleSettings, learning_rate

from ..forked_python import forked_python
from ..leukemia_data.helpers import python_environment
from .fakes import NORMALIZATION, fake_source
from .small_training import Recorder, train

PLAN = """
model = "resnet18-narrow"
[[stage]]
epochs = 2
"""


def plan_at(folder: Path, lines: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(PLAN + lines, encoding="utf-8")
    return path


# ---- optimizers


def build_signed(groups: list[dict[str, Any]], num_steps: int, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, **options)


SIGNED = OptimizerKind(
    name="signed",
    build=build_signed,
    options={"lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0, "alpha": 0.99, "centered": False},
    ranges={"alpha": BETWEEN},
    num_buffers=lambda options: 1 + options["centered"],
)


@pytest.fixture
def signed() -> Iterator[None]:
    with OPTIMIZERS.temporarily("signed", SIGNED):
        yield


@pytest.mark.usefixtures("signed")
def test_a_custom_optimizer_trains_and_its_run_resumes_from_a_file(tmp_path: Path) -> None:
    settings = OptimizerSettings(name="signed", options={"alpha": 0.9})
    assert settings.values() == {"lr": 1e-3, "weight_decay": 0.0, "momentum": 0.0, "alpha": 0.9, "centered": False}
    whole, halved = (build_model("resnet18-narrow", 2, seed=1) for _ in range(2))
    expected = train(whole, fake_source(4, 4), epochs=2, optimizer=settings)

    recorder = Recorder(halved)
    train(halved, fake_source(4, 4), epochs=2, optimizer=settings, observer=recorder)
    halved.load_state_dict(recorder.weights[0])
    info = CheckpointInfo(
        model_name="resnet18-narrow",
        classes=("hem", "all"),
        size_px=32,
        normalization=NORMALIZATION,
        recipe={},
        data_fingerprint="",
        split_kind="subject",
        settings=TrainSettings(epochs=2, optimizer=settings),
    )
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, halved, info, recorder.states[0])
    found = load_checkpoint(path)
    assert found.info.settings.optimizer == settings
    room = checkpoint_room(halved, info.settings)
    assert 0 < room.resumable_bytes - path.stat().st_size < 1_000_000

    again = build_model("resnet18-narrow", 2, seed=9)
    again.load_state_dict(found.training_weights)
    history = train(again, fake_source(4, 4), epochs=2, optimizer=settings, start=found.state)
    assert [record.train_loss for record in history.records] == [record.train_loss for record in expected.records]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.usefixtures("signed")
def test_a_plan_names_a_custom_optimizer(tmp_path: Path) -> None:
    path = plan_at(tmp_path, 'optimizer = { name = "signed", momentum = 0.5, options = { alpha = 0.8 } }\n')
    optimizer = load_plan(str(path)).stages[0].settings.optimizer
    assert (optimizer.momentum, optimizer.options) == (0.5, {"alpha": 0.8, "centered": False})
    built = build_optimizer(nn.Linear(2, 2), optimizer, num_steps=1)
    assert (built.defaults["alpha"], built.defaults["momentum"]) == (0.8, 0.5)


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": 1}, "signed has no option beta .it takes lr, weight_decay, momentum, alpha, centered"),
        ({"alpha": 1.5}, "alpha must be between 0 and 1"),
        ({"alpha": "much"}, "alpha must be a number, got 'much'"),
        ({"centered": 1}, "centered must be true or false"),
    ],
)
def test_options_of_a_custom_optimizer_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        OptimizerSettings(name="signed", options=options)


def test_an_unknown_optimizer_is_no_other_one() -> None:
    with pytest.raises(UsageError, match=r"unknown optimizer 'adam' \(did you mean 'adamw'\?\); known are sgd"):
        OptimizerSettings(name="adam")
    settings = OptimizerSettings()
    object.__setattr__(settings, "name", "adam")
    with pytest.raises(UsageError, match="unknown optimizer"):
        build_optimizer(nn.Linear(2, 2), settings, num_steps=1)


def test_an_optimizer_must_have_a_rate_and_a_name_of_its_own() -> None:
    with pytest.raises(UsageError, match="must have an option lr"):
        register_optimizer("rateless", build_signed, {"momentum": 0.0})
    with pytest.raises(UsageError, match="'sgd' is there already"):
        register_optimizer("sgd", build_signed, {"lr": 1.0})
    assert OPTIMIZERS.names() == ("sgd", "adamw", "ranger21")


# ---- schedules


def polynomial(now: Moment, power: float, hold_epochs: int) -> float:
    return now.peak_lr if now.progress < hold_epochs else now.peak_lr * (1 - now.fraction) ** power


@contextmanager
def polynomial_known() -> Iterator[None]:
    kind = ScheduleKind(name="polynomial", course=polynomial, options={"power": 2.0, "hold_epochs": 0})
    with SCHEDULES.temporarily("polynomial", kind):
        yield


def test_a_custom_schedule_drives_a_training(tmp_path: Path) -> None:
    with polynomial_known():
        path = plan_at(tmp_path, 'schedule = { name = "polynomial", warmup_epochs = 1, options = { power = 3 } }\n')
        settings = load_plan(str(path)).stages[0].settings
        rates = [learning_rate(0.8, settings.schedule, progress, 5) for progress in (0.5, 1, 3, 5)]
        assert rates == pytest.approx([0.4, 0.8, 0.8 * 0.5**3, 0])
        model = build_model("resnet18-narrow", 2)
        history = train(model, fake_source(4, 4), epochs=2, schedule=ScheduleSettings(name="polynomial"))
        # The middle of the last of two steps of an epoch: three quarters of it.
        assert [record.lr for record in history.records] == pytest.approx(
            [0.05 * (1 - 0.75 / 2) ** 2, 0.05 * (1 - 1.75 / 2) ** 2]
        )


def test_a_custom_schedule_is_stored_scaled_and_read_again() -> None:
    with polynomial_known():
        settings = TrainSettings(
            epochs=10, schedule=ScheduleSettings(name="polynomial", options={"hold_epochs": 4, "power": 1.5})
        )
        stored = json.loads(json.dumps(settings.to_dict()))
        assert stored["schedule"]["options"] == {"power": 1.5, "hold_epochs": 4}
        assert TrainSettings.from_dict(stored) == settings
        assert settings.with_epochs_scaled(0.5).schedule.options == {"power": 1.5, "hold_epochs": 2}
        with pytest.raises(UsageError, match="power must be a number"):
            replace(settings.schedule, options={"power": "steep"})
    with pytest.raises(UsageError, match="unknown schedule 'polynomial'"):
        TrainSettings.from_dict(stored)


def test_settings_without_custom_options_are_stored_as_before() -> None:
    stored = TrainSettings(epochs=1).to_dict()
    assert "options" not in stored["optimizer"]
    assert "options" not in stored["schedule"]


# ---- networks


class Tiny(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, kernel_size=3, padding=1)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images_BCHW).relu().mean(dim=(2, 3)))
        return logits


def test_a_custom_network_is_built_counted_trained_and_planned(tmp_path: Path) -> None:
    with NETWORKS.temporarily("tiny", Network(name="tiny", build=Tiny, description="one convolution")):
        assert model_names()[-1] == "tiny"
        model = build_model("tiny", 3, seed=4)
        assert torch.equal(model.fc.weight, build_model("tiny", 3, seed=4).fc.weight)
        cost = model_cost("tiny", 32)
        assert cost == (32, 4 * 28 + 2 * 5, 32 * 32 * 4 * 27 + 2 * 4, ())
        assert describe_models(32)[-1].to_dict()["description"] == "one convolution"
        history = train(build_model("tiny", 2), fake_source(4, 4), epochs=1)
        assert np.isfinite(history.records[0].train_loss)
        path = plan_at(tmp_path, "")
        path.write_text(path.read_text().replace("resnet18-narrow", "tiny"))
        assert load_plan(str(path)).model_name == "tiny"
        path.write_text(path.read_text().replace('"tiny"', '"tinny"'))
        with pytest.raises(UsageError, match=r"line 2: unknown model 'tinny' \(did you mean 'tiny'\?\)"):
            load_plan(str(path))


def test_choices_and_costs_are_known_without_torch() -> None:
    code = (
        "import sys\n"
        "from leukemia_models.networks.registry import describe_models, model_names\n"
        "from leukemia_models.training.optimizers import OPTIMIZERS, OptimizerSettings\n"
        "from leukemia_models.training.run_state import TrainSettings\n"
        "from leukemia_models.training.schedules import SCHEDULES\n"
        "assert len(describe_models(224)) == len(describe_models(128)) == len(model_names()) == 12\n"
        "TrainSettings(epochs=3, optimizer=OptimizerSettings(name='ranger21', inner_schedule=False))\n"
        "assert {'sgd'} < set(OPTIMIZERS) and {'cosine'} < set(SCHEDULES)\n"
        "print([name for name in ('torch', 'pytorch_optimizer') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ---- metrics

F2 = Metric(name="f2", title="F2", value=lambda o: float(fbeta_score(o.labels_N, o.predictions_N, beta=2)))


def f2_of_confusions(confusion_DC: np.ndarray) -> np.ndarray:
    _, false_1, false_0, true_1 = confusion_DC.T
    return 5 * true_1 / (5 * true_1 + 4 * false_0 + false_1)


@pytest.fixture
def samples(rng: np.random.Generator) -> EvaluatedSamples:
    subject = np.sort(rng.integers(0, 20, 200))
    labels = subject % 2
    scores = ((labels + rng.normal(0, 1, 200) + 2) / 5).clip(0, 1)
    return EvaluatedSamples(tuple(map(str, range(200))), tuple(map(str, subject)), labels, scores)


def test_a_custom_metric_is_in_the_results_with_an_interval(samples: EvaluatedSamples) -> None:
    settings = BootstrapSettings(num_draws=200)
    with METRICS.temporarily("f2", F2):
        found = classification_metrics(samples.labels_N, samples.probabilities_NK)
        by_hand = fbeta_score(samples.labels_N, samples.probabilities_N > 0.5, beta=2)
        assert found.values()["f2"] == found.to_dict()["f2"] == pytest.approx(by_hand)
        assert metric_title("f2", ("hem", "all")) == "F2"
        slow = subject_bootstrap(samples, settings=settings).intervals["f2"]
        assert slow.low < by_hand < slow.high
        assert paired_bootstrap(samples, samples, settings=settings).differences["f2"].difference == 0
    with METRICS.temporarily("f2", replace(F2, of_confusions=f2_of_confusions)):
        quick = subject_bootstrap(samples, settings=settings).intervals["f2"]
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high))


def test_a_custom_metric_is_undefined_where_it_says_so(samples: EvaluatedSamples) -> None:
    def value_of(metric: Metric, rows: Any, **more: bool) -> float | None:
        with METRICS.temporarily("own", replace(metric, name="own")):
            values: Mapping[str, float | None] = classification_metrics(
                samples.labels_N[rows], samples.probabilities_NK[rows], **more
            ).values()
        return values["own"]

    everything, positives = slice(None), samples.labels_N == 1
    assert value_of(F2, positives) is None
    assert value_of(replace(F2, needs_both_classes=False), positives) is not None
    assert value_of(replace(F2, needs_probabilities=True), everything, are_probabilities=False) is None
    assert value_of(replace(F2, value=lambda o: float("nan")), everything) is None


# ---- documents


DOCUMENTED = {
    "models.md": "NETWORKS: small",
    "training.md": "OPTIMIZERS: rmsprop, SCHEDULES: polynomial",
    "evaluation.md": "METRICS: f2",
}
REGISTER = """
import json, pathlib, sys
from leukemia_models.evaluation.metrics import METRICS
from leukemia_models.networks.registry import NETWORKS
from leukemia_models.training.optimizers import OPTIMIZERS
from leukemia_models.training.schedules import SCHEDULES

kinds = {"NETWORKS": NETWORKS, "OPTIMIZERS": OPTIMIZERS, "SCHEDULES": SCHEDULES, "METRICS": METRICS}
found = []
for block in json.loads(sys.stdin.read()):
    before = {kind: set(registry) for kind, registry in kinds.items()}
    exec(block, {})
    new = {kind: set(registry) - before[kind] for kind, registry in kinds.items()}
    found.append(", ".join(f"{kind}: {name}" for kind, names in new.items() for name in names))
print(json.dumps(found))
"""


def registering_example(page: str) -> str:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    blocks = (part.split("\n```")[0] for part in text.split("```python\n")[1:])
    [block] = [block for block in blocks if "register_" in block]
    return block


def test_what_the_documents_register_is_registered() -> None:
    # A separate process, as what it registers must not stay.
    done = subprocess.run(
        [*forked_python(), "-c", REGISTER],
        env=python_environment(),
        input=json.dumps([registering_example(page) for page in DOCUMENTED]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(zip(DOCUMENTED, json.loads(done.stdout), strict=True)) == DOCUMENTED
