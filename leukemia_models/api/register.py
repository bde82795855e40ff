"""Register custom networks, optimizers, schedules and metrics by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukemia_data.lazy_imports import lazy_names

if TYPE_CHECKING:
    from leukemia_models.evaluation.metrics import register_metric as metric
    from leukemia_models.networks.registry import register_network as network
    from leukemia_models.training.optimizers import register_optimizer as optimizer
    from leukemia_models.training.schedules import register_schedule as schedule

    __all__ = ["metric", "network", "optimizer", "schedule"]

_TARGETS = {
    "network": "leukemia_models.networks.registry:register_network",
    "optimizer": "leukemia_models.training.optimizers:register_optimizer",
    "schedule": "leukemia_models.training.schedules:register_schedule",
    "metric": "leukemia_models.evaluation.metrics:register_metric",
}
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
