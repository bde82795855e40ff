"""Commands run in this process, and what their results say of themselves."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import cli.ldata
import cli.ltrain
from leukemia_data.splitting.leaks import is_disjoint_stamp

from .world import Cell, write_source

_BUILD = ("--size", "32", "--recipe", "raw", "--n-jobs", "1", "--name", "cells")
_TRAIN = (
    *("--size", "32", "--model", "resnet18-narrow", "--device", "cpu", "--epochs", "1", "--batch-size", "16"),
    *("--augment", "none", "--num-threads", "1", "--batchnorm", "running"),
)


@dataclass(frozen=True)
class Told:
    """What a command said."""

    exit_code: int
    text: str


class Bench:
    """A folder with a source, its cache and runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.cache = folder / "cache"

    def build(self, cells: Sequence[Cell], *options: object) -> None:
        """Write the source and build the cache of it.

        Raises
        ------
        RuntimeError
            If that fails.
        """
        table = write_source(cells, self.folder)
        told = run_command(cli.ldata.main, "build", table, *_BUILD, "--cache", self.cache, *options)
        if told.exit_code:
            raise RuntimeError(f"a source of this trial could not be built: {told.text}")

    def train(self, out: str, *options: object) -> Told:
        """Train one epoch into a folder."""
        return run_command(cli.ltrain.main, "--cache", self.cache, *_TRAIN, "--out", self.folder / out, *options)

    def kfold(self, out: str, *options: object) -> Told:
        """Cross-validate."""
        named = ("--cache", self.cache, *_TRAIN, "--out", self.folder / out)
        return run_command(cli.ltrain.main, "kfold", *named, *options)

    def ltrain(self, *arguments: object) -> Told:
        """Run any other command."""
        return run_command(cli.ltrain.main, *arguments)


def run_command(group: Any, *arguments: object) -> Told:
    """Run a command in this process.

    Raises
    ------
    Exception
        Whatever it raises that is no exit: a user would see a traceback.
    """
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Told(result.exit_code, result.output)


def parts_of(run: Path) -> dict[str, str]:
    """Part of each image of a run, by the name of its file."""
    with (run / "split.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"].rpartition("/")[2]: row["split"] for row in csv.DictReader(file)}


def stamps_below(folder: Path) -> list[str]:
    """Stamps of all results below a folder."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("results.json"))]
    # That of a cross-validation tells the stamp itself.
    return [content["split"]["stamp"] if "split" in content else content["stamp"] for content in found]


def are_disjoint(stamps: Sequence[str]) -> bool:
    """Whether some result claims that no person stands on two sides."""
    return any(map(is_disjoint_stamp, stamps))


@dataclass(frozen=True)
class Some:
    """People, and photographs whatever was done to their files."""

    people: frozenset[str] = frozenset()
    originals: frozenset[int] = frozenset()

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> Some:
        """The people and photographs of cells."""
        known = list(cells)
        return cls(frozenset(cell.person for cell in known), frozenset(cell.original for cell in known))

    def __or__(self, other: Some) -> Some:
        return Some(self.people | other.people, self.originals | other.originals)

    def __and__(self, other: Some) -> Some:
        return Some(self.people & other.people, self.originals & other.originals)

    def __bool__(self) -> bool:
        return bool(self.people or self.originals)


@dataclass(frozen=True)
class Seen:
    """Whom and what a network was trained on, and whom and what it was chosen by."""

    trained: Some = Some()
    chosen: Some = Some()

    @classmethod
    def of_run(cls, cells: Sequence[Cell], parts: Mapping[str, str]) -> Seen:
        """Whom a run's split trains on and validates by."""
        return cls(_part(cells, parts, "train"), _part(cells, parts, "valid"))

    def __or__(self, other: Seen) -> Seen:
        return Seen(self.trained | other.trained, self.chosen | other.chosen)

    def meets(self, *, valid: Some, test: Some) -> bool:
        """Whether trained ones validate or are tested on, or ones that it was chosen by are tested on."""
        return bool(self.trained & (valid | test) or self.chosen & test)


def is_mixed(cells: Sequence[Cell], parts: Mapping[str, str], seen: Seen) -> bool:
    """Whether a person or photograph stands in several parts of a split, or was seen by the weights it starts from."""
    train, valid, test = (_part(cells, parts, name) for name in ("train", "valid", "test"))
    return bool(train & valid or train & test or valid & test) or seen.meets(valid=valid, test=test)


def _part(cells: Sequence[Cell], parts: Mapping[str, str], name: str) -> Some:
    return Some.of(cell for cell in cells if parts.get(cell.name) == name)
