"""All operations that a recipe may hold, by name, and what holds for which.

An operation is a value: validated parameters and a ``version``, which is raised whenever the operation's pixels change,
so that caches made before become misses. How it changes pixels is told in ``preprocess``; nothing here needs NumPy or
OpenCV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from leukemia_data.operations.clahe import Clahe, ClaheLab, ClaheLightness, Equalization, Unsharp
from leukemia_data.operations.colour import Gray, GrayWorld, StainMacenko, StainReinhard
from leukemia_data.operations.filters import Gabor, HighPass, MeanFilter
from leukemia_data.operations.framing import Canvas, CenterCrop, CropToCell, Fit, Framing, Resize

__all__ = [
    "OPERATIONS",
    "Canvas",
    "CenterCrop",
    "Clahe",
    "ClaheLab",
    "ClaheLightness",
    "CropToCell",
    "Equalization",
    "Fit",
    "Framing",
    "Gabor",
    "Gray",
    "GrayWorld",
    "HighPass",
    "MeanFilter",
    "Operation",
    "Resize",
    "StainMacenko",
    "StainReinhard",
    "Unsharp",
    "depends_on_size",
    "finds_the_cell",
    "keeps_the_background",
    "operation_to_dict",
]

Operation = (
    Framing
    | Clahe
    | ClaheLab
    | ClaheLightness
    | Unsharp
    | GrayWorld
    | Gray
    | StainMacenko
    | StainReinhard
    | MeanFilter
    | HighPass
    | Gabor
    | CenterCrop
    | Resize
)
OPERATIONS: Mapping[str, type[Operation]] = {operation.op: operation for operation in get_args(Operation)}


def depends_on_size(operation: Operation) -> bool:
    """Whether the operation's result depends on the cache's size, so that it cannot be shared between sizes.

    A ``side_px`` of None stands for the cache's size in every operation that has one.
    """
    return isinstance(operation, Resize) or getattr(operation, "side_px", 0) is None


def finds_the_cell(operation: Operation) -> bool:
    """Whether the operation changes the cell alone, which it finds by its exactly black background."""
    return isinstance(operation, ClaheLab | StainMacenko | StainReinhard)


def keeps_the_background(operation: Operation) -> bool:
    """Whether exactly the background of the frame before is exactly black after the operation.

    Pixels of the cell within a level or two of black may join it: no step that looks for the cell would miss them.
    """
    return finds_the_cell(operation) or isinstance(operation, Canvas | CenterCrop | GrayWorld | Gray)


def operation_to_dict(operation: Operation) -> dict[str, Any]:
    """Name, version and parameters, as manifests and checkpoints keep them."""
    return {"op": operation.op, "version": operation.version, **asdict(operation)}
