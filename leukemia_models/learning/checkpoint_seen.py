"""What a checkpoint's weights have seen, as its file holds it: tensors ``seen.<source>.<column>``, and a description.

Keys of 64 bits are stored as int64, the same bits; looks as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leukemia_data.samples.near_looks import LOOK_VALUES
from leukemia_data.splitting.seen_samples import COLUMNS, LOOK_COLUMNS, Keys, Looks, Naming, SeenSamples, SeenSource

SEEN_PREFIX = "seen."
_DTYPES = {name: np.int8 if name in LOOK_COLUMNS else np.int64 for name in COLUMNS}


def seen_tensors(seen: SeenSamples) -> dict[str, Tensor]:
    """Return keys of shape (k,), int64, and looks of shape (k, 64), int8, of all sources by their names in the file."""
    return {
        f"{SEEN_PREFIX}{number}.{name}": torch.from_numpy(column.view(_DTYPES[name]).copy())
        for number, source in enumerate(seen.sources)
        for name in COLUMNS
        if len(column := getattr(source, name))
    }


def seen_description(seen: SeenSamples) -> dict[str, Any]:
    """Return all but the keys as JSON can hold it."""
    namings = [
        {"source": source.naming.source, "subjects_from": source.naming.subjects_from} for source in seen.sources
    ]
    return {"is_complete": seen.is_complete, "sources": namings}


def read_seen(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SeenSamples:
    """Return what :func:`seen_tensors` and :func:`seen_description` told.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is something else, as in a damaged file.
    """
    is_complete = description["is_complete"]
    if not isinstance(is_complete, bool):
        raise ValueError(f"is_complete is {is_complete!r:.40}")
    sources = [_source(number, each, tensors) for number, each in enumerate(description["sources"])]
    return SeenSamples(tuple(sources), is_complete)


def _source(number: int, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SeenSource:
    names = description["source"], description["subjects_from"]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"a source is named {names!r:.60}")
    found = {name: tensors.get(f"{SEEN_PREFIX}{number}.{name}") for name in COLUMNS}
    columns: dict[str, Any] = {
        name: _looks(value) if name in LOOK_COLUMNS else _keys(value)
        for name, value in found.items()
        if value is not None
    }
    return SeenSource(Naming(*names), **columns)


def _keys(tensor: Tensor) -> Keys:
    if tensor.dtype != torch.int64 or tensor.dim() != 1:
        raise ValueError(f"keys are {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor.numpy().view(np.uint64)


def _looks(tensor: Tensor) -> Looks:
    if tensor.dtype != torch.int8 or tensor.shape[1:] != (LOOK_VALUES,):
        raise ValueError(f"looks are {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor.numpy()
