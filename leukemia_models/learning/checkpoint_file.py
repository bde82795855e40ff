"""A safetensors file as its metadata and its tensors: read from disk, or from bytes that another machine has read."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from leukemia_data.errors import RunError
from leukemia_data.files.documents import parse_json

_LENGTH_BYTES = 8


def read_safetensors(path: Path, data: bytes | None = None) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a file.

    Parameters
    ----------
    path : Path
        The file; with `data` only its name, for messages.
    data : bytes, optional
        What the file holds, where another machine has read it.

    Raises
    ------
    RunError
        If it is missing, or no such file.
    """
    if data is None:
        return read_part(path, "")
    try:
        # First, because it checks the header as well.
        tensors = safetensors.torch.load(data)
        return _metadata(data), tensors
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_part(path: Path, prefix: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a file's metadata, and those of its tensors whose names begin with `prefix`.

    Raises
    ------
    RunError
        If it is missing, or no such file.
    """
    _require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - no mapping
            # Copies: tensors that map the file would keep Windows from replacing it.
            return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in names}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} cannot be read as a checkpoint: {error}; it is damaged or another kind of file")


def checkpoint_bytes(path: Path) -> bytes:
    """Return what a checkpoint's file holds, unchecked, to be handed to :func:`read_safetensors` on other machines.

    Raises
    ------
    RunError
        If it is missing or cannot be read.
    """
    _require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise RunError(f"there is no checkpoint {path}: name a run's folder that holds one")


def _metadata(data: bytes) -> dict[str, str]:
    """The header's metadata: safetensors itself tells it of files only."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = parse_json(data[_LENGTH_BYTES : _LENGTH_BYTES + length].decode("utf-8"))
    metadata: dict[str, str] | None = header.get("__metadata__")
    return metadata or {}
