"""Networks for caches of cell images: trained, evaluated, compared.

The public names are imported when they are first used; docs/api.md has an example of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukemia_data.lazy_imports import lazy_names

if TYPE_CHECKING:
    from leukemia_models.api import register as register
    from leukemia_models.api.run import Run as Run
    from leukemia_models.api.run import open_run as open_run
    from leukemia_models.api.train import compare as compare
    from leukemia_models.api.train import cross_validate as cross_validate
    from leukemia_models.api.train import evaluate_predictions as evaluate_predictions
    from leukemia_models.api.train import train as train
    from leukemia_models.experiments.batchnorm_experiment import run_experiment as run_experiment
    from leukemia_models.experiments.stream_bench import measure_stream as measure_stream
    from leukemia_models.networks.registry import build_model as build_model
    from leukemia_models.networks.registry import describe_models as describe_models
    from leukemia_models.networks.registry import model_names as model_names
    from leukemia_models.runs.run_config import MachineOptions as MachineOptions
    from leukemia_models.training.plan_file import load_plan as load_plan
    from leukemia_models.training.plan_file import plan_names as plan_names
    from leukemia_models.training.training_plan import TrainingPlan as TrainingPlan

_MODULES = {
    "api.train": ("train", "cross_validate", "compare", "evaluate_predictions"),
    "api.run": ("open_run", "Run"),
    "training.plan_file": ("load_plan", "plan_names"),
    "training.training_plan": ("TrainingPlan",),
    "runs.run_config": ("MachineOptions",),
    "networks.registry": ("model_names", "describe_models", "build_model"),
    "experiments.stream_bench": ("measure_stream",),
    "experiments.batchnorm_experiment": ("run_experiment",),
}
_RENAMED = {
    "batchnorm": "leukemia_models.training",
    "inference": "leukemia_models.evaluation",
    "judging": "leukemia_models.evaluation",
    "learning": "leukemia_models.training",
    "planning": "leukemia_models.training",
}
__all__ = ["register", *(name for names in _MODULES.values() for name in names)]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "register": "leukemia_models.api.register",
        **{name: f"leukemia_models.{module}:{name}" for module, names in _MODULES.items() for name in names},
    },
    _RENAMED,
)
