from __future__ import annotations

import logging
import sys

import pytest

from cli import console as module
from cli.console import LineProgress, TerminalConsole, Verbosity, logged_to_stderr


def test_without_a_terminal_progress_is_silent_but_for_verbose(capsys, monkeypatch):
    console = TerminalConsole()
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    for verbosity, told in ((Verbosity.QUIET, ""), (Verbosity.NORMAL, ""), (Verbosity.VERBOSE, "working: 1 of 4 img")):
        with console.at(verbosity), console.progress(4, "working") as bar:
            bar.update()
            bar.show(loss="0.5")
        assert capsys.readouterr().err.startswith(told)
    assert console.verbosity is Verbosity.NORMAL


def test_lines_of_progress_count_from_what_was_done_and_come_rarely(capsys, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])
    progress = LineProgress(TerminalConsole(), None, "epoch 3/30", "step", 1000)
    for _ in range(20):
        now_s[0] += 2
        progress.update(100)
    # 15 updates of 100 steps in 30 s.
    assert capsys.readouterr().err == "epoch 3/30: 2,500 step, 50.0 step/s\n"


def test_a_bar_is_drawn_on_a_terminal_and_lines_stand_above_it(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = TerminalConsole()
    with console.progress(4, "working") as bar:
        bar.update(2)
        console.warn("odd")
    told = capsys.readouterr().err
    assert "working" in told
    assert "warning: odd\n" in told


def test_quiet_draws_no_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = TerminalConsole()
    with console.at(Verbosity.QUIET), console.progress(4, "working") as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_what_libraries_log_is_shown_for_a_while(capsys):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with logged_to_stderr():
        logging.getLogger("store").info("asked")
        logging.getLogger("store").debug("in detail")
    logging.getLogger("store").info("asked again")
    assert capsys.readouterr().err == "store: asked\n"
    assert (root.level, list(root.handlers)) == before


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\x07b"])
def test_names_cannot_steer_the_terminal(text, capsys):
    TerminalConsole().note(text)
    assert "\x1b" not in capsys.readouterr().err.replace("\x07", "\x1b")
