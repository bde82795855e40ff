"""The address of a scheduler on a network: read, and tried before a library waits for it for minutes."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from leukemia_data.errors import BuildError, UsageError

CONNECT_WITHIN_S = 10.0


def check_listening(address: str, schemes: tuple[str, ...]) -> None:
    """Check that somebody listens at ``HOST:PORT`` or ``scheme://HOST:PORT``.

    Parameters
    ----------
    address
        As the user wrote it.
    schemes
        Those that the engine knows.

    Raises
    ------
    UsageError
        If it is no such address.
    BuildError
        If nobody listens there.
    """
    host, port = _parse(address, schemes)
    try:
        socket.create_connection((host, port), timeout=CONNECT_WITHIN_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BuildError(
            f"nothing answers at --address {address} ({reason}): is the cluster running, and can this machine reach it?"
        ) from error


def _parse(address: str, schemes: tuple[str, ...]) -> tuple[str, int]:
    try:
        parts = urlsplit(address if "://" in address else f"{schemes[0]}://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in schemes:
        known = " or ".join(f"{scheme}://HOST:PORT" for scheme in schemes)
        raise UsageError(f"--address {address!r}: give HOST:PORT or {known}")
    return host, port
