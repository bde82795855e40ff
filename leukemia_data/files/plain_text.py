"""Text that is shown to people: names from files may hold characters that steer a terminal or hide what they say."""

from __future__ import annotations

import re

# Control characters but the line feed and the tab; halves of pairs, which stand for bytes that are no UTF-8; and what
# turns the direction of writing or ends a line unseen.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return the text with escapes in the place of characters that steer a terminal or cannot be shown.

    Line feeds and tabs stay.

    >>> printable("\x1b[31mred\x1b[0m")
    '\\x1b[31mred\\x1b[0m'
    """
    return text if text.isprintable() else _STEERING.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
