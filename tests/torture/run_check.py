"""Is all that lies in the folder of a run whole, and is it the same as in another one?"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from leukemia_data.errors import RunError
from leukemia_data.files.atomic import PARTIAL_SUFFIX
from leukemia_data.files.lock import LOCK_FILES
from leukemia_models.training.checkpoint import Checkpoint, load_checkpoint

_TIMES = frozenset({"seconds", "images_per_s", "data_wait_share", "train_s", "wait_s"})
_ENDS = {".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF\n"}


def broken_files(root: Path) -> Iterator[str]:
    """Yield what is wrong with files that bear their final name."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != PARTIAL_SUFFIX and path.name not in LOCK_FILES:
            try:
                _read(path)
            except (RunError, ValueError) as error:
                yield f"{path.relative_to(root)} is not whole: {error}"


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        load_checkpoint(path)
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        _rows(path)
    elif not path.read_bytes().endswith(_ENDS.get(path.suffix, b"\n")):
        raise ValueError("it has no end")


def _rows(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    if not text.endswith("\n") or any(None in row or None in row.values() for row in rows):
        raise ValueError("a row is not whole")
    return rows


def differences(root: Path, expected: Path) -> Iterator[str]:
    """Yield what is not, bit for bit, as in an undisturbed run; how long something took does not count."""
    found, wanted = _files(root), _files(expected)
    yield from (f"{name} is only in one of the two" for name in sorted(found ^ wanted))
    yield from (f"{name} differs" for name in sorted(found & wanted) if not _is_same(root / name, expected / name))


def _files(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name not in LOCK_FILES}


def _is_same(path: Path, expected: Path) -> bool:
    if path.name == "history.csv":
        return _timeless(_rows(path)) == _timeless(_rows(expected))
    if path.suffix == ".safetensors":
        return _is_same_checkpoint(load_checkpoint(path), load_checkpoint(expected))
    return path.read_bytes() == expected.read_bytes()


def _is_same_checkpoint(found: Checkpoint, expected: Checkpoint) -> bool:
    values, tensors = _values_and_tensors(found)
    expected_values, expected_tensors = _values_and_tensors(expected)
    return (
        values == expected_values
        and tensors.keys() == expected_tensors.keys()
        and all(torch.equal(tensors[name], expected_tensors[name]) for name in tensors)
    )


def _values_and_tensors(checkpoint: Checkpoint) -> tuple[Any, dict[str, torch.Tensor]]:
    state = checkpoint.state
    tensors = {**checkpoint.training_weights}
    values: dict[str, Any] = {
        "info": checkpoint.info.to_dict(),
        "history": [record.to_dict() for record in state.history.records],
        "progress": state.progress.to_dict() if state.progress else None,
        "counters": dict(state.optimizer_counters),
    }
    for number, entries in (state.optimizer_state or {}).items():
        for name, value in entries.items():
            place = tensors if isinstance(value, torch.Tensor) else values
            place[f"optimizer {number} {name}"] = value  # type: ignore[index]
    if state.average is not None:
        tensors |= {f"average {name}": value for name, value in state.average.tensors.items()}
        values["average"] = state.average.num_updates
    return _timeless(values), tensors


def _timeless(value: Any) -> Any:
    """The same without anything that a clock told."""
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in _TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value
