"""What both programs do with any command line: names, errors, verbosity, ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import cli.main_group
from cli.console import CONSOLE, Verbosity
from cli.main_group import MainGroup
from leukemia_data.errors import BuildError, UsageError

from ..leukemia_data.helpers import python_environment


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``words("a", "--n", 3)``: run a program of two commands, ``speak`` being the default one."""

    @click.command("speak")
    @click.option("--n", default=1)
    @click.option("--local-copies")
    @click.option("--fail")
    def speak(n: int, local_copies: str | None, fail: str | None) -> None:
        CONSOLE.note("a note")
        CONSOLE.note("caution: a caution")
        CONSOLE.warn("a warning")
        with CONSOLE.progress(2, "working") as bar:
            bar.update()
        if fail is not None:
            raise {"build": BuildError, "usage": UsageError, "interrupt": KeyboardInterrupt}[fail]("why")
        click.echo(f"{n} {local_copies}")

    @click.command("other")
    def other() -> None:
        click.echo("other")

    monkeypatch.setattr(cli.main_group, "speak", speak, raising=False)
    monkeypatch.setattr(cli.main_group, "other", other, raising=False)
    names = {name: (f"cli.main_group:{name}", f"Does {name}.") for name in ("speak", "other")}
    group = MainGroup("words", lazy_commands=names, default_command="speak")
    return lambda *arguments: CliRunner().invoke(group, [str(word) for word in arguments])


@pytest.mark.parametrize("line", [["speak", "--n", 3], ["--n", 3], ["-q", "--n", 3], ["--n=3", "-q"], ["-v", "--n", 3]])
def test_options_alone_are_those_of_the_default_command(line, words):
    assert words(*line).stdout == "3 None\n"


def test_nothing_at_all_is_the_default_command(words):
    assert words().stdout == "1 None\n"
    assert words("-q").stdout == "1 None\n"
    assert "Does other." in words("--help").stdout


@pytest.mark.parametrize("line", [["-q", "speak"], ["speak", "-q"], ["speak", "--quiet"], ["-q"]])
def test_quiet_leaves_cautions_and_results(line, words):
    result = words(*line)
    assert result.stdout == "1 None\n"
    assert result.stderr == "caution: a caution\nwarning: a warning\n"
    assert CONSOLE.verbosity is Verbosity.NORMAL


def test_quiet_leaves_errors(words, error_of):
    assert error_of(words("-q", "--fail", "build"), 1) == "why"


def test_verbose_shows_tracebacks_of_failed_work_and_the_time(words):
    result = words("-v", "--fail", "build")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "Error: why" in result.stderr
    assert "took 0.0 s" in result.stderr
    assert "Traceback" not in words("-v", "--fail", "usage").stderr
    assert "Traceback" not in words("--fail", "build").stderr


def test_verbose_and_quiet_exclude_each_other(words, error_of):
    assert "--quiet" in error_of(words("-v", "speak", "-q"), 2)


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [(["speek"], "'speak'"), (["speak", "--local-copy", "x"], "--local-copies"), (["OTHER"], "'other'")],
)
def test_unknown_names_are_refused_with_the_most_similar_one(line, suggestion, words, error_of):
    message = error_of(words(*line), 2)
    assert "id you mean" in message
    assert suggestion in message


def test_options_of_the_default_command_before_another_are_named(words, error_of):
    message = error_of(words("--n", 3, "other"), 2)
    assert message.startswith("--n: options before other")
    assert words("--local-copies", "other").stdout == "1 other\n"


def test_interrupts_have_their_own_code(words, error_of):
    assert error_of(words("--fail", "interrupt"), 130) == "interrupted"


@pytest.mark.parametrize("line", [["--stage-dir", "x"], ["speak", "--stage-dir=x"]])
def test_renamed_options_work_with_one_caution(line, words):
    result = words(*line)
    assert result.stdout == "1 x\n"
    [told] = [text for text in result.stderr.splitlines() if "--stage-dir" in text]
    assert "--local-copies" in told
    assert "--stage-dir" not in words("speak", "--help").output


def test_the_renamed_variable_works_with_one_caution(caches: Path, ldata: Callable) -> None:
    line = ("stats", "--cache", caches, "--size", 64)
    old = ldata(*line, env={"LDATA_STAGE": "x"})
    assert old.exit_code == 0
    assert old.stderr.count("LDATA_STAGE") == 1
    assert "LDATA_STAGE" not in ldata(*line, env={"LDATA_STAGE": "x", "LDATA_LOCAL_COPIES": "y"}).stderr
    assert "LDATA_STAGE" not in ldata("recipes", env={"LDATA_STAGE": "x"}).stderr


@pytest.mark.parametrize("tool", ["ldata", "ltrain"])
def test_programs_are_modules_too(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"cli.{tool}", "completion", "--help"],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"Usage: {tool} completion")


_WAITING = """
import signal, time
import click
import cli.main_group as module
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

@click.command()
def wait():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        if {is_stuck}:
            time.sleep(60)

module.wait = wait
module.MainGroup("waiting", lazy_commands={{"wait": ("cli.main_group:wait", "Wait.")}}).main()
"""


def _end_with(number: int, *, times: int) -> tuple[int, str, float]:
    """Exit code and stderr of a program that gets a signal so many times, and the seconds that its end took."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITING.format(is_stuck=times > 1), "wait"],
        env=python_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    started_s = time.monotonic()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.3)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors, time.monotonic() - started_s


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_program_with_one_line(name: str, exit_code: int) -> None:
    code, errors, _ = _end_with(signal.Signals[name], times=1)
    assert code == exit_code
    assert errors == "Error: interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(("name", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_terminates_immediately(name: str, exit_code: int) -> None:
    code, errors, seconds = _end_with(signal.Signals[name], times=2)
    assert code == exit_code
    assert errors == "Error: interrupted twice: ended at once\n"
    assert seconds < 20
