"""What an audit says of one thing that it looked at: a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["LEAK", "WRONG", "LOOK", "ok", "unchecked", "info"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and how often (``None`` where nothing could be counted)."""

    key: str
    verdict: Verdict
    count: int | None
    text: str
