"""Names from files may neither steer the terminal nor choose where a command writes."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from leukemia_data.auditing import audit_sheet
from leukemia_data.sources.source import list_source
from leukemia_models.runs.run_folder import RunFolder

from ..leukemia_data.helpers import build, cache_dir, make_source
from ..torture.fuzz_places import make_run

Run = Callable[..., Result]
CLASSES = ("../../outside", "=cmd()|\x1b[31m`<b>\x9b2J")
IDS = ("../../outside", "/outside", "=cmd()", "\x1b[2J", "a|b", "<script>", "\r", "two\nlines", "caf\udce9", "\u202e")
SUBJECTS = ("/outside", "..\\outside", "=1+1", "\x1b]0;title\x07", "$\\frac{", "<script>", "'", "a|b")
PLAN = """
model = "resnet18-narrow"
name = "{name}"
[[stage]]
name = "one"
epochs = 1
batch_size = 4
augment = "none"
"""


class Arena:
    """A folder to work in, deep below others in which nothing may ever appear or change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.here = root / "a" / "b" / "c"
        self.here.mkdir(parents=True)
        for folder in (root, root / "a", root / "a" / "b"):
            (folder / "outside").write_text("sentinel", encoding="utf-8")
        self._before = self._state()

    def _state(self) -> dict[str, bytes]:
        paths = (path for path in self.root.rglob("*") if self.here not in path.parents and path != self.here)
        return {path.relative_to(self.root).as_posix(): path.read_bytes() if path.is_file() else b"" for path in paths}

    def assert_untouched(self) -> None:
        assert self._state() == self._before


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    made = Arena(tmp_path_factory.mktemp("arena"))
    before = Path.cwd()
    os.chdir(made.here)
    yield made
    os.chdir(before)


@pytest.fixture(scope="module")
def hostile_cache(arena: Arena) -> Path:
    """A cache of 32 images at 32 px, whose classes, subjects and ids were all chosen to do harm."""
    source = make_source(arena.here / "source", 32)
    listing = list_source([source])
    records = tuple(
        replace(
            record, record_id=f"{IDS[n % len(IDS)]}{n}", subject=f"{SUBJECTS[n // 2 % len(SUBJECTS)]}{record.label}"
        )
        for n, record in enumerate(listing.records)
    )
    build(replace(listing, classes=CLASSES, records=records), arena.here / "cache", sizes_px=(32,))
    return cache_dir(arena.here / "cache", 32)


def assert_tame(result: Result) -> None:
    """A terminal that shows this does nothing but show it."""
    for control in ("\x1b", "\x07", "\x9b", "\x00"):
        assert control not in result.output


def formulas(table: Path) -> list[str]:
    """Cells that a spreadsheet would compute; every row must be as long as the header."""
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert {len(row) for row in rows} <= {len(header)}
    return [cell for row in rows for cell in row if cell.startswith(("=", "+", "@", "\t", "\r"))]


@pytest.mark.parametrize("arguments", [("stats",), ("info",), ("verify",), ("stats", "--split", "subject"), ("gc",)])
def test_commands_on_caches_show_names_and_do_nothing_else(
    arena: Arena, hostile_cache: Path, ldata: Run, arguments: tuple[str, ...]
) -> None:
    command, *options = arguments
    place = ["--cache", arena.here / "cache"] if command == "gc" else [hostile_cache]
    result = ldata(command, *options, *place)
    assert result.exit_code == 0, result.output
    assert_tame(result)
    arena.assert_untouched()


def test_audit_writes_into_its_folder_only_and_protects_every_cell(
    arena: Arena, hostile_cache: Path, ldata: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Figures take seconds, and are tested beside their modules.
    monkeypatch.setattr(audit_sheet, "draw_balance", lambda report, path: None)
    monkeypatch.setattr(audit_sheet, "draw_findings", lambda report, load, path: False)
    out = arena.here / "audit"
    result = ldata("audit", hostile_cache, arena.here / "source", "--no-near", "--out", out)
    assert result.exit_code == 0, result.output
    assert_tame(result)
    arena.assert_untouched()
    assert not formulas(out / "findings.csv")
    told = json.loads(ldata("audit", hostile_cache, "--no-near", "--json").stdout)
    assert {one["class"] for one in told["balance"]} == set(CLASSES)


@pytest.fixture(scope="module")
def hostile_run(arena: Arena, hostile_cache: Path, ltrain: Run) -> Path:
    """A run on that cache, evaluated."""
    root = arena.here / "run"
    make_run(root, hostile_cache)
    result = ltrain("evaluate", root, "--draws", 100, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert_tame(result)
    return root


def test_a_run_on_hostile_names_writes_into_its_folder_only(arena: Arena, hostile_run: Path, ltrain: Run) -> None:
    result = ltrain("predict", hostile_run, "--part", "test", "--out", arena.here / "p.csv", "--submission", "s.csv")
    assert result.exit_code == 0, result.output
    assert_tame(result)
    arena.assert_untouched()
    page = (hostile_run / "test" / "summary.md").read_text(encoding="utf-8")
    assert "\x1b" not in page


def test_tables_of_a_run_hold_no_formulas(hostile_run: Path) -> None:
    tables = sorted(hostile_run.rglob("*.csv"))
    assert {path.name for path in tables} >= {"predictions.csv", "split.csv", "subjects.csv"}
    for path in tables:
        assert not formulas(path), path


@pytest.mark.parametrize("name", ["../../outside", "/outside", "..", "a/b", "a\\\\b", "\\u001b[31m"])
def test_a_plan_cannot_name_a_folder_elsewhere(arena: Arena, hostile_cache: Path, ltrain: Run, name: str) -> None:
    (arena.here / "plan.toml").write_text(PLAN.format(name=name), encoding="utf-8")
    result = ltrain("--cache", hostile_cache, "--plan", "plan.toml", "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert_tame(result)
    arena.assert_untouched()
    assert not (arena.here / "runs").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a/b", ".hidden", "-x"])
def test_a_cache_name_cannot_lead_elsewhere(arena: Arena, hostile_cache: Path, ldata: Run, name: str) -> None:
    result = ldata("build", "source", "--recipe", "raw", "--size", 32, "--cache", "cache", f"--name={name}")
    assert result.exit_code == 2, result.output
    arena.assert_untouched()


@pytest.mark.parametrize("name", ["../run", "/outside", "..", "fold-1/../..", "fold-x"])
def test_folds_are_in_the_folder_of_their_cross_validation(
    arena: Arena, ltrain: Run, error_of: Callable[[Result, int], str], name: str
) -> None:
    root = arena.here / "kfold"
    root.mkdir(exist_ok=True)
    content = {"format": "leukemia-cells k-fold", "format_version": 1, "kind": "2", "seed": 0, "folds": {name: "x"}}
    (root / "kfold.json").write_text(json.dumps(content), encoding="utf-8")
    error = error_of(ltrain("kfold", "--out", root, "--resume", "--device", "cpu"), 1)
    assert "is no name of a fold" in error
    arena.assert_untouched()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_in_a_folder_are_replaced_and_linked_folders_refused(
    arena: Arena, hostile_run: Path, ltrain: Run, error_of: Callable[[Result, int], str]
) -> None:
    run = Path(shutil.copytree(hostile_run, arena.here / "linked"))
    part = RunFolder(run).part("test")
    for name in ("predictions.csv", "results.json", "summary.md", "subjects.csv", "confusion.png"):
        (part / name).unlink()
        (part / name).symlink_to(arena.root / "outside")
    assert ltrain("evaluate", run, "--draws", 100).exit_code == 0
    assert not any(path.is_symlink() for path in part.iterdir())
    arena.assert_untouched()
    shutil.rmtree(part)
    part.symlink_to(arena.root / "a", target_is_directory=True)
    assert "is a link" in error_of(ltrain("evaluate", run, "--draws", 100), 1)
    arena.assert_untouched()
