"""Commands that show something: models, plans, compare, preview-augment, batchnorm-demo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE, format_table, print_result
from cli.options import (
    FILE,
    FOLDER,
    SEED,
    OptionValue,
    augment_option,
    chosen_cache_options,
    complete_plan,
    json_option,
)
from leukemia_data.caches.opening import open_chosen_cache
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_models.comparing.comparison import Comparison, PairComparison
    from leukemia_models.experiments.batchnorm_experiment import BatchNormExperiment
    from leukemia_models.networks.registry import NetworkDescription
    from leukemia_models.training.batchnorm_report import BatchNormScores
    from leukemia_models.training.training_plan import Stage, TrainingPlan


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=FOLDER)
@click.option(
    "--part",
    default="test",
    type=click.Choice(["valid", "test"]),
    help="The evaluated part to compare by; of a k-fold always its out-of-fold predictions.",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("comparison"),
    help="Folder of tables and figures; files of an earlier comparison in it are replaced.",
)
@json_option
def compare(runs: tuple[Path, ...], part: str, out: Path, as_json: bool) -> None:
    """Compare two or more RUNs: folders of runs, of plans with several stages, or of k-folds.

    Writes into --out: the accuracy per epoch of all runs in one figure, and one per stage; confusion matrices side by
    side; ROC curves; accuracy per subject; and a table (Markdown, CSV, JSON) of the settings that differ, sizes, and
    metrics per image and per subject with intervals. Runs that were evaluated on the same images are compared pair by
    pair on the same draws of subjects; others are not compared.

    \b
    Examples:
      ltrain compare runs/r18 runs/r50 runs/r152
      ltrain compare runs/r18 runs/r18-clahe --part valid --out reports/clahe
      ltrain compare runs/kfold-raw runs/kfold-clahe --json
    """
    # torch and matplotlib take seconds to load: not for --help.
    from leukemia_models.comparing.comparison import compare_runs

    comparison, files = compare_runs(runs, part, out=out)
    written = {"out": str(out), "files": [path.name for path in files]}
    lines = _comparison_lines(comparison, [files[0], out / "accuracy.png"])
    print_result({**comparison.to_dict(), **written}, lines, as_json=as_json)


def _comparison_lines(comparison: Comparison, look_at: Sequence[Path]) -> Iterator[str]:
    yield _comparison_table(comparison)
    for sentence in comparison.cautions:
        yield f"caution: {sentence}"
    marked = {run.label: run.marked_label for run in comparison.runs}
    for pair in comparison.pairs:
        yield _pair_line(pair, marked)
    yield f"Look at {' and '.join(map(str, look_at))}"


def _comparison_table(comparison: Comparison) -> str:
    from leukemia_models.evaluation.metrics import main_metric_names, metric_title

    shown = main_metric_names(len(comparison.runs[0].classes))
    header = ["per image", *(metric_title(name, comparison.runs[0].classes) for name in shown), "images"]
    rows = []
    for run in comparison.runs:
        values = run.metrics.values()
        numbers = ["-" if (value := values[name]) is None else f"{value:.3f}" for name in shown]
        rows.append([run.marked_label, *numbers, f"{len(run.samples):,}"])
    return format_table(header, rows)


def _pair_line(pair: PairComparison, marked: Mapping[str, str]) -> str:
    """Return the difference in balanced accuracy per image, or why there is none."""
    names = f"{marked[pair.first]} minus {marked[pair.second]}"
    if pair.images is None:
        return f"{names}: not compared, {pair.refusal}"
    difference = pair.images.differences["balanced_accuracy"]
    if difference.difference is None:
        return f"{names}: balanced accuracy undefined"
    interval = difference.interval
    spread = f" ({pair.images.note})" if pair.images.note else ""
    if interval is not None:
        spread = f", {pair.images.settings.level:.0%} interval {interval.low:+.3f} to {interval.high:+.3f}{spread}"
    return f"{names}: balanced accuracy {difference.difference:+.3f}{spread}"


@click.command("models")
@click.option("--size", "size_px", default=224, help="Side of the images.")
@json_option
def models(size_px: int, as_json: bool) -> None:
    """List the networks that --model takes: parameters, multiply-adds of one image, sizes of the stages.

    Parameters are those for two classes, multiply-adds those of convolutions and the linear layer. `reports` says which
    of the two reports has a network.

    \b
    Examples:
      ltrain models
      ltrain models --size 128 --json
    """
    from leukemia_models.networks.registry import describe_models

    found = describe_models(size_px)
    print_result([model.to_dict() for model in found], _model_lines(found, size_px), as_json=as_json)


def _model_lines(found: Sequence[NetworkDescription], size_px: int) -> Iterator[str]:
    header = ("model", "parameters", "multiply-adds", "stages (px)", "reports")
    numbers = format_table(header, [_model_row(model) for model in found]).splitlines()
    for line, description in zip(numbers, ["", *(model.description for model in found)], strict=True):
        yield f"{line}  {description}".rstrip()
    yield f"\nOf one image of {size_px} x {size_px} px; 2 classes."


def _model_row(model: NetworkDescription) -> list[str]:
    return [
        model.name,
        f"{model.cost.parameters / 1e6:.2f} M",
        f"{model.cost.multiply_adds / 1e9:.2f} G",
        " ".join(map(str, model.cost.stage_sizes_px)),
        " ".join(model.reports) or "-",
    ]


@click.command("plans")
@click.argument("plan", required=False, shell_complete=complete_plan)
@json_option
def plans(plan: str | None, as_json: bool) -> None:
    """List the shipped training plans, or check PLAN (a name, or a file .toml) and show its stages.

    \b
    Examples:
      ltrain plans
      ltrain plans report-a-resnet50
      ltrain plans my-plan.toml
    """
    from leukemia_models.training.plan_file import load_plan, plan_names, plan_path

    if plan is not None:
        chosen = load_plan(plan)
        print_result(chosen, [_plan_text(chosen), f"\n{plan_path(plan)}"], as_json=as_json)
        return
    found = [load_plan(name) for name in plan_names()]
    rows = [(each.name, each.model_name, str(sum(s.settings.epochs for s in each.stages))) for each in found]
    lines = (
        format_table(("plan", "network", "epochs"), rows),
        "\n`ltrain plans NAME` shows one with its stages; `ltrain --plan NAME` trains by it.",
    )
    print_result([each.to_dict() for each in found], lines, as_json=as_json)


def _plan_text(plan: TrainingPlan) -> str:
    folds = f", {plan.num_folds} folds" if plan.num_folds is not None else ""
    evaluation = plan.evaluation
    header = ("stage", "size", "recipe", "epochs", "batch", "optimizer", "lr", "schedule", "augment", "start")
    return (
        f"{plan.name}: {plan.description}\n{plan.model_name}{folds}; evaluated with tta {evaluation.tta.description}, "
        f"BatchNorm {evaluation.batchnorm}\n\n{format_table(header, [_stage_row(stage) for stage in plan.stages])}"
    )


def _stage_row(stage: Stage) -> tuple[str, ...]:
    settings = stage.settings
    return (
        stage.name,
        " > ".join(str(px) for px, _ in settings.sizes) if settings.sizes else str(stage.size_px or "any"),
        stage.recipe or "any",
        " + ".join(str(count) for _, count in settings.sizes) if settings.sizes else str(settings.epochs),
        str(stage.batch_size),
        settings.optimizer.name,
        f"{settings.optimizer.peak_lr:g}",
        settings.schedule.name,
        stage.augmentation.name,
        str(stage.start),
    )


@click.command("preview-augment")
@chosen_cache_options
@augment_option
@click.option("--images", "per_class", default=3, type=click.IntRange(1, 20), help="Images of each class.")
@click.option("--epochs", default=8, type=click.IntRange(1, 40), help="Epochs to show, from the first.")
@click.option("--seed", default=0, type=SEED, help="The run's seed.")
@click.option("--out", type=FILE, default=Path("augment.png"), help="PNG to write.")
@json_option
def preview_augment(
    location: Location, size_px: int | None, augment: str, epochs: int, out: Path, as_json: bool, **options: OptionValue
) -> None:
    """Draw a grid: a few cells of each class as they are cached, and as each epoch of a run with --seed shows them.

    These are the very pixels that the run's network gets, with the normalization undone.

    \b
    Examples:
      ltrain preview-augment --size 224 --augment report-b
      ltrain preview-augment cache/C-NMC_Leukemia/128-abeec0bcfa84 --augment runs/r18/augment.toml --out r18.png
    """
    # torch takes seconds to load: not for --help.
    from leukemia_data.augmenting.preview import preview_augmentation

    with open_chosen_cache(location, size_px=size_px) as opened:
        found = preview_augmentation(opened, augment, out, epochs=epochs, console=CONSOLE, **options)
    line = f"{len(found.image_ids)} images, augmentation {found.augmentation.name}, epochs 1 to {epochs}: {out}"
    print_result(found, [line], as_json=as_json)


@click.command("batchnorm-demo")
@click.option(
    "--out",
    type=FOLDER,
    required=True,
    help="Folder for batchnorm.csv, .json, .png and .pdf; made where it is missing.",
)
@click.option("--epochs", default=6, type=click.IntRange(1, 100))
@click.option("--lr", default=0.01, type=click.FloatRange(0, min_open=True), help="Rate of AdamW.")
@click.option("--seed", default=0, type=SEED, help="Of cells, weights, order and augmentation.")
@json_option
def batchnorm_demo(out: Path, as_json: bool, **options: OptionValue) -> None:
    """Train a ResNet-18 on generated cells for a minute, and evaluate every epoch's weights four ways.

    (i) in eval mode at once; (ii) in training mode, as the second report validated; (iii) in eval mode after that, as
    it tested; (iv) in eval mode with BatchNorm statistics estimated anew on clean training images, which is what
    `--batchnorm auto` offers every run. No data set is needed.

    \b
    Examples:
      ltrain batchnorm-demo --out batchnorm
      ltrain batchnorm-demo --out batchnorm --epochs 10 --seed 1 --json
    """
    # torch takes seconds to load: not for --help.
    from leukemia_models.experiments.batchnorm_experiment import run_experiment

    found = run_experiment(out, console=CONSOLE, **options)
    print_result(found, _experiment_lines(found), as_json=as_json)


def _experiment_lines(experiment: BatchNormExperiment) -> Iterator[str]:
    from leukemia_models.experiments.four_ways import WAY_TITLES

    share = f"{experiment.share_of_labels:.3f} of the labels"
    rows = [[str(scores.epoch), *(_cell(getattr(scores, way)) for way in WAY_TITLES)] for scores in experiment.epochs]
    yield f"Validation accuracy, share of class 1 among the predictions ({share}):\n"
    yield format_table(["epoch", *WAY_TITLES.values()], rows)
    yield "\n!: nearly all predictions are one class. (ii) and (iii) have seen validation images; (iv) has not."
    yield f"Look at {experiment.out / 'batchnorm.png'}"


def _cell(scores: BatchNormScores) -> str:
    mark = "!" if scores.one_class_warning else " "
    return f"{scores.accuracy:.3f}  {scores.share_positive:.2f}{mark}"
