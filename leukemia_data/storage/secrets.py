"""Texts of libraries and servers without what must not be printed: keys, tokens, signed queries."""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "***"

_SECRET_NAMES = re.compile(r"ACCESS_KEY|SECRET|TOKEN|PASSWORD|CONNECTION_STRING|ACCOUNT_KEY|CREDENTIAL", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]*:[^/\s@]*@")
_QUERY = re.compile(r"(?<=\w)\?[^\s'\"<>]*=[^\s'\"<>]*")
_NAMED_SECRET = re.compile(
    r"((?:access_?key(?:_?id)?|secret(?:_?access_?key)?|token|signature|password|account_?key)['\"]?\s*[:=]\s*['\"]?)"
    r"[^\s'\",;&)]+",
    re.IGNORECASE,
)
_SHORTEST = 6


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """The text with every credential hidden.

    Parameters
    ----------
    text
        Anything that a library or a server said.
    environment
        The process's environment: values of variables that look like credentials are looked for in `text`.
    """
    secrets = {value for name, value in environment.items() if _SECRET_NAMES.search(name) and len(value) >= _SHORTEST}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(f"?{HIDDEN}", text)
    return _NAMED_SECRET.sub(rf"\1{HIDDEN}", text)
