"""Leukaemia cell images: preprocessed once into a cache, then streamed.

The public names are imported when they are first used; docs/api.md has an example of each. ``import leukemia_data``
itself loads nothing, and only streams, datasets and augmenters load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukemia_data.lazy_imports import lazy_names

if TYPE_CHECKING:
    from leukemia_data.api import register as register
    from leukemia_data.api.arguments import LeukemiaWarning as LeukemiaWarning
    from leukemia_data.api.audit import audit as audit
    from leukemia_data.api.audit import recover_subjects as recover_subjects
    from leukemia_data.api.build import build as build
    from leukemia_data.api.build import commit_jobs as commit_jobs
    from leukemia_data.api.build import plan_jobs as plan_jobs
    from leukemia_data.api.build import preview as preview
    from leukemia_data.api.build import run_job as run_job
    from leukemia_data.api.build import scan as scan
    from leukemia_data.api.build import write_sample as write_sample
    from leukemia_data.api.caches import collect_garbage as collect_garbage
    from leukemia_data.api.caches import convert as convert
    from leukemia_data.api.caches import describe as describe
    from leukemia_data.api.caches import list_caches as list_caches
    from leukemia_data.api.caches import open_cache as open_cache
    from leukemia_data.api.caches import preview_augmentation as preview_augmentation
    from leukemia_data.api.caches import pull as pull
    from leukemia_data.api.caches import push as push
    from leukemia_data.api.caches import repair as repair
    from leukemia_data.api.caches import statistics as statistics
    from leukemia_data.api.caches import verify as verify
    from leukemia_data.augmenting.augment import Augmenter as Augmenter
    from leukemia_data.augmenting.augmentation import load_augmentation as load_augmentation
    from leukemia_data.caches.cache import Cache as Cache
    from leukemia_data.caches.cache import Part as Part
    from leukemia_data.caches.cache import Split as Split
    from leukemia_data.errors import LeukemiaError as LeukemiaError
    from leukemia_data.errors import UsageError as UsageError
    from leukemia_data.operations.operation import Operation as Operation
    from leukemia_data.operations.recipe import Recipe as Recipe
    from leukemia_data.operations.recipe import load_recipe as load_recipe
    from leukemia_data.operations.recipe import preset_names as preset_names
    from leukemia_data.sources.reading_options import ReadingOptions as ReadingOptions

__version__ = "0.2.0"

_MODULES = {
    "api.build": ("write_sample", "scan", "preview", "build", "plan_jobs", "run_job", "commit_jobs"),
    "api.caches": (
        *("open_cache", "list_caches", "statistics", "describe", "verify", "repair", "convert"),
        *("collect_garbage", "push", "pull", "preview_augmentation"),
    ),
    "api.audit": ("audit", "recover_subjects"),
    "caches.cache": ("Cache", "Split", "Part"),
    "operations.recipe": ("Recipe", "load_recipe", "preset_names"),
    "operations.operation": ("Operation",),
    "sources.reading_options": ("ReadingOptions",),
    "augmenting.augmentation": ("load_augmentation",),
    "augmenting.augment": ("Augmenter",),
    "errors": ("LeukemiaError", "UsageError"),
    "api.arguments": ("LeukemiaWarning",),
}
_RENAMED = {
    "engines": "leukemia_data.building",
    "generated": "leukemia_data.sources",
    "pictures": "leukemia_data.scanning and leukemia_data.auditing",
    "pixels": "leukemia_data.decoding and leukemia_data.operations",
    "recipes": "leukemia_data.operations",
    "remote": "leukemia_data.caches",
    "samples": "leukemia_data.records",
    "storage": "leukemia_data.stores",
}
__all__ = ["register", *(name for names in _MODULES.values() for name in names)]
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "register": "leukemia_data.api.register",
        **{name: f"leukemia_data.{module}:{name}" for module, names in _MODULES.items() for name in names},
    },
    _RENAMED,
)
