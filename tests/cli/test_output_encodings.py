"""Names in any script on streams whose encoding lacks their letters: escaped, never an error of the program."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.console import escape_what_streams_lack, print_json
from leukemia_data.sources.reading_options import ReadingOptions
from leukemia_data.sources.source import list_source

from ..forked_python import forked_python
from ..leukemia_data.helpers import build, cache_dir, make_source, python_environment
from ..torture.fuzz_places import make_run

ENCODINGS = ["cp1252", "ascii"]
NAMES = ("芽球 😀", "正常é")
SHOWN = {
    # What of both names each encoding has.
    "cp1252": ("\\u82bd\\u7403 \\U0001f600", "\\u6b63\\u5e38é"),
    "ascii": ("\\u82bd\\u7403 \\U0001f600", "\\u6b63\\u5e38\\xe9"),
}
# One interpreter runs them all, each as a program does: with the command line in sys.argv.
_SCRIPT = """
import io, json, sys
from cli.{tool} import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["{tool}", *arguments]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="strict")
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
"""


def run(
    command: list[str], encoding: str, cwd: Path, python: Sequence[str] = (sys.executable,)
) -> subprocess.CompletedProcess[str]:
    environment = python_environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0", OMP_NUM_THREADS="1")
    return subprocess.run(
        [*python, *command], cwd=cwd, env=environment, capture_output=True, encoding=encoding, check=False
    )


def run_all(tool: str, encoding: str, cwd: Path, *command_lines: list[object]) -> str:
    words = json.dumps([[str(word) for word in line] for line in command_lines])
    done = run(["-c", _SCRIPT.format(tool=tool), words], encoding, cwd, forked_python())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source whose classes, folders and files have names of several scripts, and its cache at 32 px."""
    root = tmp_path_factory.mktemp("encodings")
    made = make_source(root / "made", 32)
    for folder, name in zip(("blast", "normal"), NAMES, strict=True):
        shutil.move(made / folder, root / "細胞" / name)
    for person in (root / "細胞" / NAMES[1]).iterdir():
        person.rename(person.with_name(f"{person.name}9"))
    (root / "細胞" / NAMES[0] / "空😀.png").write_bytes(b"")
    done = run(["-m", "cli.ldata", *BUILD], "utf-8", root, forked_python())
    assert done.returncode == 0, done.stderr
    return root


BUILD = [
    "build",
    "細胞",
    "--class-level",
    "1",
    "--recipe",
    "raw",
    "--size",
    "32",
    "--n-jobs",
    "1",
    "--on-error",
    "quarantine",
]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_commands_of_ldata(place: Path, encoding: str) -> None:
    commands = [
        [*BUILD, "--cache", f"cache-{encoding}"],
        BUILD,
        ["stats", "--split", "subject"],
        ["info"],
        ["list"],
        ["verify"],
        ["gc"],
        ["audit", "細胞", "--no-near", "--out", f"audit-{encoding}"],
        ["preview", "細胞", "--recipe", "raw", "--size", 32, "--images", 1, "--out", f"preview-{encoding}.png"],
    ]
    told = run_all("ldata", encoding, place, *commands)
    assert all(name in told for name in SHOWN[encoding])
    findings = (place / f"audit-{encoding}" / "findings.csv").read_text(encoding="utf-8")
    assert "空😀.png" in findings


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-8"])
def test_json_stays_json(place: Path, encoding: str) -> None:
    done = run(["-m", "cli.ldata", "stats", "--json"], encoding, place)
    assert done.returncode == 0, done.stderr
    assert all(name in json.dumps(json.loads(done.stdout), ensure_ascii=False) for name in NAMES)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_errors_are_printed_in_escapes(place: Path, encoding: str) -> None:
    done = run(["-m", "cli.ldata", "build", "没有.csv"], encoding, place)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "Error: source not found: \\u6ca1\\u6709.csv"


@pytest.mark.slow
def test_commands_of_ltrain(tmp_path: Path) -> None:
    source = make_source(tmp_path / "made", 32)
    for folder, name in zip(("blast", "normal"), NAMES, strict=True):
        (source / folder).rename(source / name)
    build(list_source([source], options=ReadingOptions(class_level=1)), tmp_path / "cache", sizes_px=(32,))
    make_run(tmp_path / "実験", cache_dir(tmp_path / "cache", 32))
    told = run_all(
        "ltrain",
        "cp1252",
        tmp_path,
        ["evaluate", "実験", "--draws", 100, "--device", "cpu"],
        ["predict", "実験", "--part", "test", "--out", "予測.csv"],
    )
    assert all(name in told for name in SHOWN["cp1252"])
    assert NAMES[0] in (tmp_path / "予測.csv").read_text(encoding="utf-8")


def test_only_streams_that_would_fail_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(errors: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(), "cp1252", errors)

    monkeypatch.setattr(sys, "stdout", stream("replace"))
    monkeypatch.setattr(sys, "stderr", stream("strict"))
    escape_what_streams_lack()
    assert (sys.stdout.errors, sys.stderr.errors) == ("replace", "backslashreplace")
    print_json({"class": NAMES[0]})
    sys.stdout.seek(0)
    assert json.load(sys.stdout) == {"class": NAMES[0]}


def test_a_call_leaves_the_streams_alone(ldata, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "cp1252", "strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert ldata("recipes").exit_code == 0
    assert stream.errors == "strict"
