"""Completion: what is offered to shells, and the scripts in the shells of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

import cli.ldata
import cli.ltrain
from cli.options import RUN_MARKS
from leukemia_data.augmenting.augmentation import augmentation_names
from leukemia_data.operations.recipe import preset_names
from leukemia_models.networks.registry import model_names
from leukemia_models.training.plan_file import plan_names

from ..leukemia_data.helpers import python_environment

PROGRAMS = {"ldata": cli.ldata.main, "ltrain": cli.ltrain.main}


def offered(line: str) -> tuple[set[str], set[str]]:
    """The words, and the kinds of paths, that are offered at the end of a line."""
    program, *words = line.split(" ")
    items = ShellComplete(PROGRAMS[program], {}, program, "_COMPLETE").get_completions(words[:-1], words[-1])
    plain = {item.value for item in items if item.type == "plain"}
    return plain, {item.type for item in items} - {"plain"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ldata sta", {"stats"}),
        ("ldata --qu", {"--quiet"}),
        ("ltrain pre", {"predict", "preview-augment"}),
        ("ltrain --epochs-", {"--epochs-scale"}),
        ("ltrain train --epochs-", {"--epochs-scale"}),
        ("ltrain --size 64 --epochs-", {"--epochs-scale"}),
        ("ltrain -q eval", {"evaluate"}),
        ("ldata build --recipe report-b", {"report-b"}),
        ("ldata build --stage", set()),
        ("ldata info --local", {"--local-copies"}),
        ("ltrain --plan report-b-a", {"report-b-adamw"}),
        ("ltrain plans report-b-a", {"report-b-adamw"}),
        ("ltrain completion z", {"zsh"}),
    ],
)
def test_commands_options_and_names(line, words):
    assert offered(line)[0] == words


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ldata build --recipe ", preset_names()),
        ("ldata recipes ", preset_names()),
        ("ldata preview --compare ", preset_names()),
        ("ltrain --augment ", augmentation_names()),
        ("ltrain preview-augment --augment ", augmentation_names()),
        ("ltrain --plan ", plan_names()),
        ("ltrain --model ", model_names()),
        ("ltrain kfold --model ", model_names()),
    ],
)
def test_all_names_that_there_are(line, names):
    words, kinds = offered(line)
    assert words == set(names)
    assert kinds <= {"file"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("ldata build ", "file"),
        ("ldata build --cache ", "dir"),
        ("ldata info ", "dir"),
        ("ldata scan --root ", "dir"),
        ("ldata info --local-copies ", "dir"),
        ("ltrain --cache ", "dir"),
        ("ltrain --out ", "dir"),
    ],
)
def test_paths(line, kind):
    assert offered(line) == (set(), {kind})


@pytest.mark.parametrize(
    "line", ["ldata build s3://lab/", "ltrain --cache s3://lab/", "ldata scan --root https://host/"]
)
def test_completion_makes_no_request_to_a_network(line):
    assert offered(line) == (set(), set())


@pytest.mark.parametrize("command", ["evaluate", "predict", "compare", "submit"])
def test_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, mark in zip(("one", "two", "folds"), RUN_MARKS, strict=True):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / mark).write_text("{}")
    (tmp_path / "runs" / "folds" / "fold-1").mkdir()
    (tmp_path / "runs" / "folds" / "fold-1" / "run.json").write_text("{}")
    (tmp_path / "runs" / "notes").mkdir()
    everything = {"runs/one", "runs/two", "runs/folds", "runs/folds/fold-1"}
    assert offered(f"ltrain {command} ") == (everything, {"dir"})
    assert offered(f"ltrain {command} runs/f")[0] == {"runs/folds", "runs/folds/fold-1"}
    assert offered(f"ltrain {command} runs/folds/")[0] == {"runs/folds/fold-1"}
    assert offered(f"ltrain {command} {tmp_path}/runs/o")[0] == {f"{tmp_path}/runs/one"}


def test_an_answer_loads_no_library_of_the_work():
    script = (
        "import sys, os; from cli.ltrain import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'cv2', 'pandas', 'sklearn', 'matplotlib', 'fsspec'} & set(sys.modules)"
    )
    environment = python_environment(_LTRAIN_COMPLETE="bash_complete", COMP_WORDS="ltrain --plan rep", COMP_CWORD="2")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'ltrain'\n{script}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "plain,report-b-adamw" in done.stdout, done.stderr
    assert "AssertionError" not in done.stderr


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH begins with a folder that has both programs, and a folder to work in."""
    for name in PROGRAMS:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli.{name} "$@"\n')
        program.chmod(0o755)
    (tmp_path / "work" / "caches here").mkdir(parents=True)
    (tmp_path / "work" / "recipe-own.toml").write_text("")
    environment = python_environment()
    return {**environment, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{environment['PATH']}", "HOME": str(tmp_path)}


def in_shell(shell: str, script: str, programs: dict[str, str], cwd: Path) -> list[str]:
    command = {"bash": ["bash", "--norc", "-ic"], "zsh": ["zsh", "-fc"], "fish": ["fish", "--no-config", "-c"]}[shell]
    done = subprocess.run(
        [*command, script], env=programs, cwd=cwd, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None or os.name != "posix", reason=f"needs {shell}")


BASH = """
eval "$(ltrain completion bash)" && eval "$(ldata completion bash)"
ask() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    "_$1_completion" "$1" 2>/dev/null
    printf '%s\\n' "${COMPREPLY[@]}"
}
"""


@needs("bash")
def test_in_bash(programs, tmp_path):
    script = (
        BASH + "ask ltrain ev; ask ltrain --plan report-a-resnet15; ask ldata build --recipe lab; complete -p ldata"
    )
    *words, registered = in_shell("bash", script, programs, tmp_path / "work")
    assert words == ["evaluate", "report-a-resnet152", "lab-clahe"]
    assert registered.endswith("_ldata_completion ldata")


@needs("fish")
def test_in_fish(programs, tmp_path):
    script = """
    ltrain completion fish | source
    complete -C 'ltrain ev'; complete -C 'ltrain --plan report-a-resnet15'; complete -C 'ltrain --cache cac'
    """
    words = in_shell("fish", script, programs, tmp_path / "work")
    assert [word.partition("\t")[0] for word in words] == ["evaluate", "report-a-resnet152", "caches here/"]


@needs("zsh")
def test_in_zsh(programs, tmp_path):
    script = """
    autoload -U compinit && compinit -u -D
    eval "$(ltrain completion zsh)"
    print $_comps[ltrain]
    _path_files() { }  # asks the line editor, which is not running
    compadd() { print "offered ${completions}" }
    _describe() { print "described ${completions_with_descriptions}" }
    words=(ltrain ev); CURRENT=2; _ltrain_completion
    words=(ltrain --plan report-a-resnet15); CURRENT=3; _ltrain_completion
    """
    registered, *offers = in_shell("zsh", script, programs, tmp_path / "work")
    assert registered == "_ltrain_completion"
    assert offers[0].startswith("described evaluate:")
    assert "offered report-a-resnet152" in offers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_to_install_it(shell, ldata):
    result = ldata("completion", shell)
    assert result.exit_code == 0
    assert f"ldata completion {shell}" in result.stdout.splitlines()[1]


def test_an_unknown_shell_is_refused(ldata, error_of):
    assert "'bash', 'zsh', 'fish'" in error_of(ldata("completion", "tcsh"), 2)


def test_every_command_completes_without_a_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, program in PROGRAMS.items():
        for command in program.list_commands(click.Context(program)):
            assert {"--quiet", "--verbose", "--help"} <= offered(f"{name} {command} --")[0], command
