"""Commands that show something: models, plans, compare, preview-augment, batchnorm-demo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import CONSOLE, format_table, print_json, print_text
from cli.options import (
    LocalPath,
    augment_option,
    cache_location_argument,
    cache_location_option,
    complete_plan,
    json_option,
    seed_type,
    size_filter_option,
)
from leukemia_data.stores.url import Location

if TYPE_CHECKING:
    from leukemia_models.comparing.comparison import Comparison, PairComparison
    from leukemia_models.experiments.batchnorm_experiment import BatchNormExperiment
    from leukemia_models.networks.registry import NetworkDescription
    from leukemia_models.training.batchnorm_report import BatchNormScores
    from leukemia_models.training.training_plan import Stage, TrainingPlan


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=LocalPath(path_type=Path, file_okay=False))
@click.option(
    "--part",
    default="test",
    show_default=True,
    type=click.Choice(["valid", "test"]),
    help="The evaluated part to compare by; of a k-fold always its out-of-fold predictions.",
)
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    default=Path("comparison"),
    show_default=True,
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
    if as_json:
        print_json({**comparison.to_dict(), "out": str(out), "files": [path.name for path in files]})
        return
    print_text(_comparison_table(comparison))
    for sentence in comparison.cautions:
        print_text(f"caution: {sentence}")
    marked = {run.label: run.marked_label for run in comparison.runs}
    for pair in comparison.pairs:
        print_text(_pair_line(pair, marked))
    print_text(f"Look at {files[0]} and {out / 'accuracy.png'}")


def _comparison_table(comparison: Comparison) -> str:
    from leukemia_models.evaluation.metrics import metric_title

    shown = ("balanced_accuracy", "sensitivity", "specificity", "weighted_f1", "auroc")
    header = ["per image", *(metric_title(name, comparison.runs[0].classes) for name in shown), "images"]
    rows = []
    for run in comparison.runs:
        values = run.metrics.values()
        numbers = ["-" if (value := values[name]) is None else f"{value:.3f}" for name in shown]
        rows.append([run.marked_label, *numbers, f"{len(run.samples):,}"])
    return format_table(header, rows)


def _pair_line(pair: PairComparison, marked: Mapping[str, str]) -> str:
    """The difference in balanced accuracy per image, or why there is none."""
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
@click.option("--size", "size_px", default=224, show_default=True, help="Side of the images.")
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
    if as_json:
        print_json([model.to_dict() for model in found])
        return
    header = ("model", "parameters", "multiply-adds", "stages (px)", "reports")
    numbers = format_table(header, [_model_row(model) for model in found]).splitlines()
    for line, description in zip(numbers, ["", *(model.description for model in found)], strict=True):
        print_text(f"{line}  {description}".rstrip())
    print_text(f"\nOf one image of {size_px} x {size_px} px; 2 classes.")


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
        if as_json:
            print_json(chosen.to_dict())
        else:
            print_text(_plan_text(chosen))
            print_text(f"\n{plan_path(plan)}")
        return
    found = [load_plan(name) for name in plan_names()]
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    rows = [(each.name, each.model_name, str(sum(s.settings.epochs for s in each.stages))) for each in found]
    print_text(format_table(("plan", "network", "epochs"), rows))
    print_text("\n`ltrain plans NAME` shows one with its stages; `ltrain --plan NAME` trains by it.")


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
        str(stage.size_px or "any"),
        stage.recipe or "any",
        str(settings.epochs),
        str(stage.batch_size),
        settings.optimizer.name,
        f"{settings.optimizer.peak_lr:g}",
        settings.schedule.name,
        stage.augmentation.name,
        str(stage.start),
    )


@click.command("preview-augment")
@cache_location_argument
@cache_location_option
@size_filter_option
@augment_option
@click.option(
    "--images", "per_class", default=3, show_default=True, type=click.IntRange(1, 20), help="Images of each class."
)
@click.option(
    "--epochs", default=8, show_default=True, type=click.IntRange(1, 40), help="Epochs to show, from the first."
)
@click.option("--seed", default=0, show_default=True, type=seed_type, help="The run's seed.")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, dir_okay=False),
    default=Path("augment.png"),
    show_default=True,
    help="PNG to write.",
)
@json_option
def preview_augment(
    cache: Location | None,
    cache_root: Location,
    size_px: int | None,
    augment: str,
    per_class: int,
    epochs: int,
    seed: int,
    out: Path,
    as_json: bool,
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
    from leukemia_data.caches.opening import open_chosen_cache

    with open_chosen_cache(cache if cache is not None else cache_root, size_px=size_px) as opened:
        found = preview_augmentation(
            opened, augment, out, per_class=per_class, epochs=epochs, seed=seed, console=CONSOLE
        )
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(
            f"{len(found.image_ids)} images, augmentation {found.augmentation.name}, epochs 1 to {epochs}: {out}"
        )


@click.command("batchnorm-demo")
@click.option(
    "--out",
    type=LocalPath(path_type=Path, file_okay=False),
    required=True,
    help="Folder for batchnorm.csv, .json, .png and .pdf; made where it is missing.",
)
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(1, 100))
@click.option("--lr", default=0.01, show_default=True, type=click.FloatRange(0, min_open=True), help="Rate of AdamW.")
@click.option("--seed", default=0, show_default=True, type=seed_type, help="Of cells, weights, order and augmentation.")
@json_option
def batchnorm_demo(out: Path, epochs: int, lr: float, seed: int, as_json: bool) -> None:
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

    found = run_experiment(out, epochs=epochs, lr=lr, seed=seed, console=CONSOLE)
    if as_json:
        print_json(found.to_dict())
    else:
        print_text(_text(found))


def _text(experiment: BatchNormExperiment) -> str:
    from leukemia_models.experiments.four_ways import WAY_TITLES

    share = f"{experiment.share_of_labels:.3f} of the labels"
    rows = [[str(scores.epoch), *(_cell(getattr(scores, way)) for way in WAY_TITLES)] for scores in experiment.epochs]
    return "\n".join(
        [
            f"Validation accuracy, share of class 1 among the predictions ({share}):",
            "",
            format_table(["epoch", *WAY_TITLES.values()], rows),
            "",
            "!: nearly all predictions are one class. (ii) and (iii) have seen validation images; (iv) has not.",
            f"Look at {experiment.out / 'batchnorm.png'}",
        ]
    )


def _cell(scores: BatchNormScores) -> str:
    mark = "!" if scores.one_class_warning else " "
    return f"{scores.accuracy:.3f}  {scores.share_positive:.2f}{mark}"
