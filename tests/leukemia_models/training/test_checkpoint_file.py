"""Checkpoints read from bytes, and bytes that are no checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from leukemia_data.errors import RunError
from leukemia_models.training.checkpoint_file import checkpoint_bytes, read_safetensors

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def with_header(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode("utf-8")


@pytest.mark.parametrize("metadata", [{"format": "any"}, None])
def test_bytes_give_what_their_file_gives(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "some.safetensors"
    save_file(TENSORS, path, metadata)
    for found_metadata, tensors in (read_safetensors(path), read_safetensors(path, checkpoint_bytes(path))):
        assert found_metadata == (metadata or {})
        assert list(tensors) == ["weight"]
        assert torch.equal(tensors["weight"], TENSORS["weight"])


def test_metadata_of_nothing_is_none() -> None:
    assert read_safetensors(Path("any"), with_header('{"__metadata__":null}')) == ({}, {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        save(TENSORS)[:-1],
        save(TENSORS)[:20],
        with_header("[]"),
        with_header("7"),
        with_header('{"__metadata__":[]}'),
        with_header('{"__metadata__":{"a":1}}'),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_what_is_no_such_file_is_refused_by_its_name(data: bytes) -> None:
    with pytest.raises(RunError, match=r"here.last\.safetensors cannot be read as a checkpoint"):
        read_safetensors(Path("here/last.safetensors"), data)
