"""The training plan that a command line means: a file's, or one stage made of the options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cli.ltrain.train_request import StageRequest, TrainRequest
from cli.output import print_note
from leukemia_data.augmenting.augmentation import load_augmentation
from leukemia_data.errors import UsageError
from leukemia_models.evaluation.predict import parse_tta
from leukemia_models.training.history import EarlyStopping
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.plan_file import load_plan
from leukemia_models.training.run_state import TrainSettings
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.training_plan import (
    OPTIONS_STAGE,
    EvaluationSettings,
    Stage,
    StartWeights,
    TrainingPlan,
    parse_start,
    scaled,
)


def requested_plan(request: TrainRequest) -> TrainingPlan:
    """Return the plan of a request, with what the command line says over what a file says.

    Raises
    ------
    UsageError
        If the file or an option is wrong.
    """
    plan = scaled(load_plan(request.plan), request.epochs_scale) if request.plan is not None else _one_stage(request)
    for warning in sorted({text for stage in plan.stages for text in stage.augmentation.warnings()}):
        print_note(f"warning: {warning}")
    return _with_machine_options(_with_evaluation_options(plan, request), request)


def _one_stage(request: TrainRequest) -> TrainingPlan:
    options = request.stage
    optimizer = _optimizer(options)
    settings = TrainSettings(
        epochs=options.epochs,
        optimizer=optimizer,
        schedule=_schedule(options, optimizer),
        clip_norm=options.clip_norm,
        label_smoothing=options.label_smoothing,
        early_stopping=EarlyStopping(patience_epochs=options.early_stopping) if options.early_stopping else None,
        ema_decay=options.ema,
    )
    stage = Stage(
        name=OPTIONS_STAGE,
        settings=settings,
        augmentation=load_augmentation(options.augment),
        size_px=options.size_px,
        recipe=options.recipe_name,
        batch_size=options.batch_size,
        sampling=options.sampling,
        class_weights=options.class_weights,
        start=_start(options.start),
    )
    return TrainingPlan(name=OPTIONS_STAGE, model_name=options.model_name, stages=(stage,))


def _start(text: str) -> StartWeights:
    start = parse_start(text, Path())
    if start.stage:
        raise UsageError(f"--start {text}: only a plan has stages; use scratch or a .safetensors file")
    return start


def _optimizer(options: StageRequest) -> OptimizerSettings:
    """The optimizer; a schedule that the user names takes the place of Ranger21's own."""
    own = False if options.optimizer == "ranger21" and options.schedule is not None else None
    return OptimizerSettings(
        name=options.optimizer,
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        inner_schedule=own,
    )


def _schedule(options: StageRequest, optimizer: OptimizerSettings) -> ScheduleSettings:
    """Without a word from the user a cosine, unless the optimizer has a schedule of its own."""
    if optimizer.schedules_itself and options.warmup_epochs:
        raise UsageError(f"--warmup-epochs: {optimizer.name} warms up by itself; add a --schedule in place of its own")
    name = options.schedule or ("constant" if optimizer.schedules_itself else "cosine")
    return ScheduleSettings(name=name, warmup_epochs=options.warmup_epochs)


def _with_evaluation_options(plan: TrainingPlan, request: TrainRequest) -> TrainingPlan:
    given, judging = request.given, plan.judging
    tta_text = request.tta if "tta" in given else str(judging.tta)
    average = request.tta_average if "tta_average" in given else judging.tta.average
    batchnorm = request.batchnorm if "batchnorm" in given else judging.batchnorm
    tta = parse_tta(tta_text, average)
    if "tta_average" in given and tta.num_views == 1:
        raise UsageError(f"--tta-average {average}: there is only one view of each image; add --tta d4")
    return replace(plan, judging=EvaluationSettings(tta=tta, batchnorm=batchnorm))


def _with_machine_options(plan: TrainingPlan, request: TrainRequest) -> TrainingPlan:
    chosen = {
        name: getattr(request, name)
        for name in ("amp", "compile", "sync_batchnorm", "accumulate")
        if name in request.given
    }
    stages = (replace(stage, settings=replace(stage.settings, **chosen)) for stage in plan.stages)
    return replace(plan, stages=tuple(stages))
