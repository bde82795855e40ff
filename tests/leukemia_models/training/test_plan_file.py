from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from leukemia_data.errors import UsageError
from leukemia_models.networks.registry import model_names
from leukemia_models.training.plan_file import load_plan, plan_names
from leukemia_models.training.training_plan import StartWeights, scaled

PLAN = """\
description = "small, then large"
model = "resnet50"
folds = 3

[judging]
tta = "d4"
batchnorm = "running"

[defaults]
recipe = "report-a"
augment = "report-a"
optimizer = { name = "sgd", lr = 0.005, momentum = 0.8 }

[[stage]]
name = "small"
size = 128
epochs = 550

[[stage]]
name = "large"
size = 224
epochs = 100
batch_size = 32
start = "best:small"
optimizer.lr = 0.0005
schedule = { name = "warm-restarts", restart_period_epochs = 10, warmup_epochs = 4 }
early_stopping = { patience_epochs = 20 }

[[stage]]
epochs = 10
optimizer = { name = "adamw" }
start = "last:large"
"""


@pytest.fixture
def plan_at(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "plan.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_text_of_a_plan_has_its_settings(plan_at):
    plan = load_plan(plan_at(PLAN))
    assert (plan.name, plan.model_name, plan.num_folds) == ("plan", "resnet50", 3)
    assert (plan.evaluation.tta.num_views, plan.evaluation.batchnorm) == (8, "running")
    small, large, third = plan.stages
    assert (small.size_px, small.recipe, small.batch_size, str(small.start)) == (128, "report-a", 64, "scratch")
    assert small.augmentation.name == "report-a"
    assert (large.batch_size, large.start, large.settings.epochs) == (32, StartWeights("best", "small"), 100)
    assert large.settings.schedule.restart_period_epochs == 10
    assert large.settings.early_stopping.patience_epochs == 20
    assert (third.name, third.size_px, str(third.start)) == ("stage3", None, "last:large")


def test_a_stage_changes_parts_of_a_default_table_unless_it_names_another_kind(plan_at):
    small, large, third = load_plan(plan_at(PLAN)).stages
    assert (small.settings.optimizer.lr, small.settings.optimizer.momentum) == (0.005, 0.8)
    assert (large.settings.optimizer.lr, large.settings.optimizer.momentum) == (0.0005, 0.8)
    assert (third.settings.optimizer.name, third.settings.optimizer.momentum) == ("adamw", None)


@pytest.mark.parametrize(
    ("wrong", "line", "words"),
    [
        ('model = "resnet50"|model = "resnet51"', 'model = "resnet51"', "unknown model 'resnet51'"),
        ("folds = 3|folds = 1", "folds = 1", "folds must be at least 2"),
        ("folds = 3|fold = 3", "fold = 3", "unknown key 'fold'"),
        ('folds = 3|name = "../../outside"', 'name = "../../outside"', "a plan's name is up to 100 characters"),
        ('folds = 3|name = "a\\\\b"', 'name = "a\\', "a plan's name is up to 100 characters"),
        ('folds = 3|name = "\\u001b[31m"', 'name = "\\u', "a plan's name is up to 100 characters"),
        ("epochs = 550|epochs = 9223372036854775808", "epochs = 9223372036854775808", "epochs must be a whole number"),
        (f"epochs = 550|epochs = 1\nclip_norm = 1{'0' * 400}", "clip_norm = 1", "clip_norm must be a number, got 1000"),
        ("folds = 3|name = 3", "name = 3", "name must be a text"),
        ('tta = "d4"|tta = "d5"', 'tta = "d5"', "'d5'"),
        ('batchnorm = "running"|batchnorm = "train"', 'batchnorm = "train"', "'train'"),
        ("size = 128|size = '128'", "size = '128'", "size must be a whole number, got '128'"),
        ("epochs = 550|epochs = 0", "epochs = 0", "epochs must be at least 1"),
        ("epochs = 550|epochs = 5.5", "epochs = 5.5", "a whole number"),
        ("epochs = 550|epocs = 550", "epocs = 550", "unknown key 'epocs'"),
        ('start = "best:small"|start = "best:smal"', 'start = "best:smal"', "no stage before it (before it: small)"),
        ('start = "best:small"|start = "best:large"', 'start = "best:large"', "no stage before it"),
        ('start = "best:small"|start = "w.safetensors"', 'start = "w.safetensors"', "there is no file"),
        ('start = "best:small"|start = "warm"', 'start = "warm"', "use scratch, best:STAGE"),
        ('name = "large"|name = "small"', 'name = "small"', "two stages are named 'small'"),
        ('name = "large"|name = "a/b"', 'name = "a/b"', "a stage's name is letters"),
        ("batch_size = 32|batch_size = 1", "batch_size = 1", "batch_size must be at least 2"),
        ("optimizer.lr = 0.0005|optimizer.lr = -1", "optimizer.lr = -1", "lr must be"),
        ("momentum = 0.8 }|momentum = 1.5 }", "momentum = 1.5 }", "momentum must be"),
        ("momentum = 0.8 }|betas = [0.9, 0.99] }", "betas = [0.9, 0.99] }", "betas"),
        ('recipe = "report-a"|augmet = "none"', 'augmet = "none"', "unknown key 'augmet'"),
        ('augment = "report-a"|augment = "report-c"', 'augment = "report-c"', "'report-c'"),
        ("warmup_epochs = 4 }|warmup_epochs = 400 }", "warmup_epochs = 400 }", "warm-up of 400"),
        ('"warm-restarts"|"hot-restarts"', '"hot-restarts"', "hot-restarts"),
        ("patience_epochs = 20 }|patience_epochs = 0 }", "patience_epochs = 0 }", "patience_epochs must be at least 1"),
        ('optimizer = { name = "adamw" }|optimizer = 7', "optimizer = 7", "expected a table"),
        ('optimizer = { name = "adamw" }|ema_decay = 2', "ema_decay = 2", "ema_decay must be"),
        ('optimizer = { name = "adamw" }|sampling = "fair"', 'sampling = "fair"', "unknown sampling"),
        (
            'optimizer = { name = "adamw" }|schedule = { name = "one-cycle", warmup_epochs = 1 }',
            "one-cycle",
            "own rise",
        ),
        (
            'optimizer = { name = "adamw" }|optimizer = { name = "ranger21" }\nschedule = { name = "cosine" }',
            'schedule = { name = "cosine" }',
            "inner_schedule = false",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_line(plan_at, wrong, line, words):
    right, bad = wrong.split("|")
    assert right in PLAN
    position = PLAN.rindex(right)
    text = PLAN[:position] + bad + PLAN[position + len(right) :]
    last = max(number for number, content in enumerate(text.splitlines(), 1) if line in content)
    path = plan_at(text)
    with pytest.raises(UsageError) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}, line {last}: ")
    assert words in str(caught.value)


def test_a_missing_length_is_named_by_its_stage(plan_at):
    path = plan_at('model = "resnet18"\n\n[[stage]]\nsize = 128\n')
    with pytest.raises(UsageError, match="line 3: epochs is missing"):
        load_plan(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "model is missing"),
        ('model = "resnet18"\n', "a plan needs its stages"),
        ('model = "resnet18"\nstage = 3\n', "line 2: stage must be a list of tables"),
        ('model = "resnet18"\n[stage]\nepochs = 1\n', r"write each stage as a \[\[stage\]\] table"),
        ('model = "resnet18"\n[defaults]\nstart = "best:a"\n[[stage]]\nepochs = 1\n', "line 3: start cannot be"),
        ("model = \n", "not valid TOML"),
    ],
)
def test_what_is_no_plan(plan_at, text, words):
    with pytest.raises(UsageError, match=words):
        load_plan(plan_at(text))


@pytest.mark.parametrize(("value", "expected"), [("true", "amp"), ("false", "fp32")])
def test_amp_of_version_01_is_taken_for_what_it_was(plan_at, value, expected):
    plan = load_plan(plan_at(f'model = "resnet18"\n[defaults]\namp = {value}\n[[stage]]\nepochs = 1\n'))
    assert plan.stages[0].settings.precision == expected
    assert any("amp is deprecated" in text for text in plan.warnings()) is (value == "true")
    both = f'model = "resnet18"\n[[stage]]\nepochs = 1\namp = {value}\nprecision = "bf16"\n'
    with pytest.raises(UsageError, match="line 4: amp is an earlier name of precision"):
        load_plan(plan_at(both))


def test_sizes_replace_the_length_and_are_scaled_with_it(plan_at):
    plan = load_plan(plan_at('model = "resnet18"\n[[stage]]\nsizes = [[64, 10], [96, 5], [128, 1]]\n'))
    [stage] = plan.stages
    assert (stage.settings.epochs, stage.settings.sizes) == (16, ((64, 10), (96, 5), (128, 1)))
    shorter = scaled(plan, 0.3).stages[0].settings
    assert (shorter.epochs, shorter.sizes) == (6, ((64, 3), (96, 2), (128, 1)))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("[[64, 10], [64, 5]]", "must ascend"),
        ("[64, 128]", r"sizes must be a list of pairs \[side in px, epochs\], got 64"),
        ("[[64, 10, 3]]", "a list of pairs"),
        ('"64:10"', "a list of pairs"),
        ("[]", "epochs is missing"),
    ],
)
def test_wrong_sizes_are_named_by_their_line(plan_at, sizes, words):
    path = plan_at(f'model = "resnet18"\n[[stage]]\nname = "a"\nsizes = {sizes}\n')
    with pytest.raises(UsageError, match=f"line 4: .*{words}"):
        load_plan(path)


def test_a_plan_that_is_not_there():
    with pytest.raises(UsageError, match="known are fast-resnet18, report-a-resnet152"):
        load_plan("report-c")
    with pytest.raises(UsageError, match="plan file not found"):
        load_plan("nowhere.toml")


def test_files_are_beside_the_plan(plan_at, tmp_path):
    (tmp_path / "mine.toml").write_text("[flip_horizontal]\np = 0.5\n", encoding="utf-8")
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    text = 'model = "resnet18"\n[[stage]]\nepochs = 1\naugment = "mine.toml"\nstart = "w.safetensors"\n'
    [stage] = load_plan(plan_at(text)).stages
    assert stage.augmentation.name == "mine"
    assert stage.start == StartWeights("file", path=tmp_path / "w.safetensors")


def test_a_byte_order_mark_is_no_part_of_a_plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, encoding="utf-8-sig")
    assert load_plan(str(path)).model_name == "resnet50"


@pytest.mark.parametrize("name", plan_names())
def test_shipped_plans_are_right(name):
    plan = load_plan(name)
    assert plan.name == name
    assert plan.description
    assert plan.model_name in model_names()


def test_the_reports_plans_are_the_reports():
    first, second, third = load_plan("report-a-resnet152").stages
    assert [stage.size_px for stage in (first, second, third)] == [128, 224, 224]
    assert [stage.batch_size for stage in (first, second, third)] == [64, 32, 32]
    assert [stage.settings.optimizer.lr for stage in (first, second, third)] == [0.005, 0.005, 0.0005]
    assert [str(stage.start) for stage in (first, second, third)] == ["scratch", "best:128px", "best:224px"]
    for name, optimizer in (("report-b-ranger21", "ranger21"), ("report-b-adamw", "adamw")):
        plan = load_plan(name)
        assert (plan.num_folds, str(plan.evaluation.tta)) == (5, "d4")
        assert plan.stages[0].settings.optimizer.name == optimizer


def test_a_scaled_plan_keeps_its_course(plan_at):
    plan = scaled(load_plan(plan_at(PLAN)), 0.02)
    small, large, third = plan.stages
    assert [stage.settings.epochs for stage in (small, large, third)] == [11, 2, 1]
    assert large.settings.schedule.restart_period_epochs == pytest.approx(0.2)
    assert large.settings.schedule.warmup_epochs == pytest.approx(0.08)
    assert large.settings.early_stopping.patience_epochs == 1
    assert scaled(plan, 1) is plan


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_scale_is_a_number_above_zero(plan_at, factor):
    with pytest.raises(UsageError, match="epochs-scale"):
        scaled(load_plan(plan_at(PLAN)), factor)


def test_all_shipped_plans_are_installed():
    import leukemia_models

    folder = Path(leukemia_models.__file__).parent / "training" / "plans"
    assert {path.stem for path in folder.iterdir()} == set(plan_names())
