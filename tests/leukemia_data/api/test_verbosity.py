from __future__ import annotations

import warnings

import pytest

from leukemia_data.api.arguments import LeukemiaWarning, QuietConsole, console_of
from leukemia_data.errors import UsageError

from ..consoles import ListConsole


def test_quiet_passes_cautions_on_as_warnings_at_the_line_of_the_caller(capsys):
    console = console_of(False)
    console.note("a note")
    with console.progress(3, "work") as bar:
        bar.update()
    with pytest.warns(LeukemiaWarning, match="few subjects") as caught:
        console.warn("few subjects")
    assert caught[0].filename == __file__
    assert capsys.readouterr() == ("", "")


def test_verbose_writes_on_stderr_alone(capsys):
    console = console_of(True)
    console.note("a note")
    with console.progress(3, "work") as bar:
        bar.update(3)
        bar.show(loss="0.4")
    said = capsys.readouterr()
    assert said.out == ""
    assert "a note" in said.err
    assert "work" in said.err
    assert "3/3" in said.err


def test_a_console_is_taken_as_it_is_and_nothing_else():
    console = ListConsole()
    assert console_of(console) is console
    assert type(console_of(False)) is QuietConsole
    for wrong in ("yes", 1, None):
        with pytest.raises(UsageError, match="verbose must be"):
            console_of(wrong)


def test_users_can_turn_cautions_off():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeukemiaWarning)
        console_of(False).warn("unheard")
