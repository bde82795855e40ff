from __future__ import annotations

import pytest

from leukemia_data.files.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("UID_1_2_3_all.bmp", "UID_1_2_3_all.bmp"),
        ("Zellgröße 細胞 🧬", "Zellgröße 細胞 🧬"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("over\rwritten\b\x00", "over\\x0dwritten\\x08\\x00"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("bad\udcffbyte", "bad\\udcffbyte"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode("utf-8")
