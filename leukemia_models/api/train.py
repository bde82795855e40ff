"""Train networks on a cache, once or fold by fold, and compare what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from leukemia_data.api.arguments import CachePlace, Place, as_optional_path, as_path, console_of, place_of
from leukemia_data.augmenting.augmentation import Augmentation
from leukemia_data.caches.cache import Split
from leukemia_data.console import Console
from leukemia_data.errors import UsageError
from leukemia_data.lazy_imports import pd
from leukemia_data.registry import did_you_mean
from leukemia_data.splitting.split_spec import SplitSpec
from leukemia_models.api.run import Run, open_run, resume_text
from leukemia_models.comparing.comparison import Comparison, compare_runs
from leukemia_models.comparing.kfold import cross_validate as cross_validate_plan
from leukemia_models.evaluation.classification import ClassificationMetrics, classification_metrics
from leukemia_models.evaluation.predictions import evaluated_samples, table_classes
from leukemia_models.runs.run_config import MachineOptions, RunOptions
from leukemia_models.runs.train_plan import train_plan
from leukemia_models.training.optimizers import OptimizerSettings
from leukemia_models.training.plan_file import load_plan
from leukemia_models.training.schedules import ScheduleSettings
from leukemia_models.training.training_plan import TrainingPlan, single_stage_plan, with_evaluation

if TYPE_CHECKING:
    from leukemia_models.comparing.fold_evaluation import CrossValidation

_EVALUATION = ("tta", "tta_average", "batchnorm")


class TrainArguments(TypedDict, total=False):
    """How a network is trained, see :func:`~leukemia_models.training.training_plan.single_stage_plan`, and evaluated.

    ``size`` in px and ``recipe`` choose among several caches; for ``tta``, ``tta_average`` and ``batchnorm`` see
    :class:`~leukemia_models.training.training_plan.EvaluationSettings`.
    """

    model: str
    epochs: int
    sizes: str | Sequence[Sequence[int]]
    size: int
    recipe: str
    batch_size: int
    augment: str | Augmentation
    sampling: str
    optimizer: str | OptimizerSettings
    lr: float
    momentum: float
    weight_decay: float
    schedule: str | ScheduleSettings
    warmup_epochs: float
    clip_norm: float
    label_smoothing: float
    class_weights: str
    early_stopping: int
    ema: float
    precision: str
    tf32: bool
    start: str
    tta: str
    tta_average: str
    batchnorm: str


def train(
    cache: CachePlace,
    *,
    out: Place | None = None,
    plan: TrainingPlan | str | None = None,
    split: str | Split = "subject",
    split_seed: int = 0,
    seed: int = 0,
    positive: str | None = None,
    allow_leak: bool = False,
    normalize: str = "train",
    device: str | None = None,
    machine: MachineOptions | None = None,
    verbose: bool | Console = False,
    **settings: Unpack[TrainArguments],
) -> Run:
    """Train a network on a cache, evaluate it, and open the run.

    Parameters
    ----------
    cache
        Opened, or where it is.
    out
        Folder of the run, which must be empty or absent; by default a new one below ``runs``.
    plan
        A training plan, its file or its name, instead of `settings`.
    split, split_seed
        As for :meth:`Cache.split <leukemia_data.caches.cache.Cache.split>`, or what that returned.
    seed, positive, allow_leak, normalize
        As for :class:`~leukemia_models.runs.run_config.RunOptions`.
    device, machine
        As torch names it, ``auto`` by default; other options of the machine.
    settings
        ``model="resnet18"``, ``epochs=30`` and the others of :class:`TrainArguments`.
    """
    trained = train_plan(
        _plan(plan, settings),
        place_of(cache),
        options=_options(split, split_seed, seed, positive, allow_leak, normalize),
        machine=_machine(machine, device),
        out=as_optional_path(out, "out"),
        resume_text=resume_text,
        console=console_of(verbose),
    )
    return open_run(trained.folders[-1].root, device=device or "auto", verbose=verbose)


def cross_validate(
    cache: CachePlace,
    *,
    folds: int | str | None = None,
    valid_share: float = 0.0,
    out: Place | None = None,
    plan: TrainingPlan | str | None = None,
    split_seed: int = 0,
    seed: int = 0,
    positive: str | None = None,
    allow_leak: bool = False,
    normalize: str = "train",
    device: str | None = None,
    machine: MachineOptions | None = None,
    verbose: bool | Console = False,
    **settings: Unpack[TrainArguments],
) -> CrossValidation:
    """Train a fresh network for every fold, evaluate each on the subjects held out, and pool the predictions.

    Parameters
    ----------
    cache, out, plan, split_seed, seed, positive, allow_leak, normalize, device, machine, settings
        As for :func:`train`.
    folds
        A number of parts by whole subjects, ``official`` for the source's own folds, ``loso`` for each subject once;
        by default the plan's number, else 5.
    valid_share
        Fraction of each fold's training subjects by which the best epoch is chosen; 0 takes the last epoch.
    """
    trained = cross_validate_plan(
        _plan(plan, settings),
        place_of(cache),
        folds=folds,
        valid_share=valid_share,
        options=_options("subject", split_seed, seed, positive, allow_leak, normalize),
        machine=_machine(machine, device),
        out=as_optional_path(out, "out"),
        resume_text=resume_text,
        console=console_of(verbose),
    )
    # Only other ranks have none, and this process trains alone.
    return cast("CrossValidation", trained.pooled)


def compare(*runs: Run | Place, part: str = "test", out: Place | None = None) -> Comparison:
    """Compare two runs or more on a part that all were evaluated on: paired differences with intervals.

    Parameters
    ----------
    runs
        Runs, or folders of runs, plans or cross-validations.
    out
        Folder for a page, a table and figures.
    """
    folders = [run.path if isinstance(run, Run) else as_path(run, "runs") for run in runs]
    return compare_runs(folders, part, out=as_optional_path(out, "out"))[0]


def evaluate_predictions(table: pd.DataFrame) -> ClassificationMetrics:
    """Return metrics of the labelled rows of a table from :meth:`~leukemia_models.api.run.Run.predict`."""
    classes = table_classes(table)
    samples = evaluated_samples(table, classes)
    return classification_metrics(samples.labels_N, samples.probabilities_NK, classes)


def _plan(plan: TrainingPlan | str | None, settings: Mapping[str, Any]) -> TrainingPlan:
    known = TrainArguments.__annotations__
    for name in settings:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}")
    evaluation = {name: settings[name] for name in _EVALUATION if name in settings}
    rest = {"size_px" if name == "size" else name: settings[name] for name in settings if name not in evaluation}
    if plan is None:
        plan = single_stage_plan(**rest)
    elif rest:
        raise UsageError(f"{', '.join(rest)}: the plan decides that; give either, or change the plan")
    return with_evaluation(load_plan(plan) if isinstance(plan, str) else plan, **evaluation)


def _options(
    split: str | Split, split_seed: int, seed: int, positive: str | None, allow_leak: bool, normalize: str
) -> RunOptions:
    spec: str | SplitSpec = split.spec if isinstance(split, Split) else split
    drawn = split.seed if isinstance(split, Split) and split.seed is not None else split_seed
    return RunOptions(
        split=spec, split_seed=drawn, seed=seed, positive=positive, allow_leak=allow_leak, normalize=normalize
    )


def _machine(machine: MachineOptions | None, device: str | None) -> MachineOptions:
    chosen = machine or MachineOptions()
    return replace(chosen, device=device or chosen.device)
