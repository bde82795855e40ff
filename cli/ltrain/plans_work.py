"""The part of ``ltrain plans`` that reads plans, and with them the settings of networks and optimizers."""

from __future__ import annotations

from typing import Any

from cli.output import format_table, print_json, print_text
from leukemia_models.training.plan_file import load_plan, plan_names, plan_path
from leukemia_models.training.training_plan import Stage, TrainingPlan


def list_plans(as_json: bool) -> None:
    """Print the shipped plans, one line each."""
    plans = [load_plan(name) for name in plan_names()]
    if as_json:
        print_json([_to_json(plan) for plan in plans])
        return
    rows = [(plan.name, plan.model_name, str(sum(s.settings.epochs for s in plan.stages))) for plan in plans]
    print_text(format_table(("plan", "network", "epochs"), rows))
    print_text("\n`ltrain plans NAME` shows one with its stages; `ltrain --plan NAME` trains by it.")


def show_plan(name_or_path: str, as_json: bool) -> None:
    """Print one plan: its stages, and the file it stands in."""
    plan = load_plan(name_or_path)
    if as_json:
        print_json(_to_json(plan))
        return
    folds = f", {plan.num_folds} folds" if plan.num_folds is not None else ""
    print_text(
        f"{plan.name}: {plan.description}\n{plan.model_name}{folds}; judged with tta {plan.judging.tta.description}, "
        f"BatchNorm {plan.judging.batchnorm}\n"
    )
    header = ("stage", "size", "recipe", "epochs", "batch", "optimizer", "lr", "schedule", "augment", "start")
    print_text(format_table(header, [_row(stage) for stage in plan.stages]))
    print_text(f"\n{plan_path(name_or_path)}")


def _row(stage: Stage) -> tuple[str, ...]:
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


def _to_json(plan: TrainingPlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "description": plan.description,
        "model": plan.model_name,
        "folds": plan.num_folds,
        "judging": plan.judging.to_dict(),
        "stages": [
            {
                "name": stage.name,
                "size_px": stage.size_px,
                "recipe": stage.recipe,
                "batch_size": stage.batch_size,
                "sampling": stage.sampling,
                "class_weights": stage.class_weights,
                "start": str(stage.start),
                "augmentation": stage.augmentation.to_dict(),
                "settings": stage.settings.to_dict(),
            }
            for stage in plan.stages
        ],
    }
