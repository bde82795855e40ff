"""Tables with faults through the command line: one line of error, nothing written, every problem in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leukemia_data.errors import SourceError
from leukemia_data.sources.image_rows import list_table_rows

TREE = "C-NMC_Leukemia/training_data"


@pytest.fixture
def lab(scratch: Path, cells: Path) -> Path:
    """The current folder with lab3/0.bmp to lab3/3.bmp, and a fifth image outside of it."""
    (scratch / "lab3").mkdir()
    images = sorted((cells / TREE).rglob("*.bmp"))
    for number, image in enumerate(images[:4]):
        shutil.copy2(image, scratch / "lab3" / f"{number}.bmp")
    shutil.copy2(images[4], scratch / "outside.bmp")
    return scratch / "lab3"


def written(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


COMMANDS = {
    "build": ["build", "lab3/t.csv", "--size", 32, "--recipe", "raw", "--cache", "out"],
    "preview": ["preview", "lab3/t.csv", "--out", "out", "--images", 1],
    "audit": ["audit", "lab3/t.csv", "--no-near", "--out", "out/audit"],
    "recover-subjects": ["recover-subjects", "lab3/t.csv", "--reference", "lab3/t.csv", "--out-dir", "out"],
}


@pytest.mark.parametrize("name", ["build", "preview", "audit"])
def test_every_problem_of_a_table_in_one_line(name: str, lab: Path, ldata: Callable, error_of: Callable) -> None:
    written(lab / "t.csv", "Path;label;split", "0.bmp;0;train", ";1;train", "1.bmp;1;later", "2.bmp", "0.bmp;1;train")
    message = error_of(ldata(*COMMANDS[name]), 1)
    assert "4 problems" in message
    for told in ("t.csv", "number of cells", "line 5 (1 cell)", "column Path is empty: line 3", "line 4 ('later')"):
        assert told in message
    assert "column label contradicts an earlier row of the same file" in message
    assert not (lab.parent / "out" / "lab3").exists()


@pytest.mark.parametrize("text", ["../outside.bmp", "absolute", "link.bmp"])
def test_files_outside_the_root_only_on_demand(
    text: str, lab: Path, ldata: Callable, error_of: Callable, json_of: Callable
) -> None:
    if text == "link.bmp":
        if os.name == "nt":
            pytest.skip("links need a privilege here")
        (lab / text).symlink_to(lab.parent / "outside.bmp")
    path = str(lab.parent / "outside.bmp") if text == "absolute" else text
    written(lab / "t.csv", "Path,label", "0.bmp,0", f"{path},1", "2.bmp,1")
    message = error_of(ldata(*COMMANDS["build"]), 1)
    assert "1 problem: column Path leads out of lab3" in message
    assert "line 3" in message
    assert "--allow-outside" in message
    built = json_of(ldata(*COMMANDS["build"], "--allow-outside", "--json"))
    assert built["num_processed"] == 3


@pytest.mark.parametrize("name", ["preview", "audit", "recover-subjects"])
def test_the_other_commands_keep_to_the_root_too(name: str, lab: Path, ldata: Callable, error_of: Callable) -> None:
    written(lab / "t.csv", "Path,label", "0.bmp,0", "../outside.bmp,1")
    command = [*COMMANDS[name]]
    if name == "recover-subjects":
        names = written(lab / "names.csv", "path,sha256", f"a.bmp,{'0' * 64}")
        command[3] = names
    assert "line 3 ('../outside.bmp')" in error_of(ldata(*command), 1)
    again = ldata(*command, "--allow-outside")
    assert "leads out" not in again.output


def test_submission_lists(lab: Path) -> None:
    written(lab / "t.csv", "Path", "../outside.bmp", "", "9.bmp", "./0.bmp", "0.bmp")
    with pytest.raises(SourceError) as failed:
        list_table_rows(lab / "t.csv", need_files=True)
    message = str(failed.value)
    for told in (
        "2 problems",
        "leads out of",
        "line 2",
        f"there is no such file (paths start from {lab}",
        "line 4 ('9.bmp')",
    ):
        assert told in message


def test_tables_of_names(lab: Path, ldata: Callable, error_of: Callable) -> None:
    names = written(lab / "names.csv", "path,sha256,fold,part", "a,12,1,train", f"b,{'0' * 64},x,nope")
    message = error_of(ldata("audit", "--reference", names), 1)
    for told in ("names.csv", "3 problems", "column sha256", "line 2 ('12')", "column fold", "column part", "('nope')"):
        assert told in message


def test_tables_that_are_no_text(lab: Path, ldata: Callable, error_of: Callable) -> None:
    (lab / "t.csv").write_bytes("Path,label\n0.bmp,0\n1.bmp,größe\n".encode("cp1252"))
    message = error_of(ldata(*COMMANDS["build"]), 1)
    assert "not UTF-8: line 3 (byte 9 of the line is 0xf6)" in message
    assert "CSV UTF-8" in message
