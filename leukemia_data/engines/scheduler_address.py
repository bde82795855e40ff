"""The address of a scheduler on a network: read, and tried before a library waits for it for minutes."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from leukemia_data.errors import BuildError, UsageError

CONNECT_WITHIN_S = 10.0


_FRAME_HEADER_BYTES = 9
_SETTINGS = 4


def check_listening(address: str, schemes: tuple[str, ...], *, is_grpc: bool = False) -> None:
    """Check that somebody listens at ``HOST:PORT`` or ``scheme://HOST:PORT``.

    Parameters
    ----------
    address
        As the user wrote it.
    schemes
        Those that the engine knows.
    is_grpc
        Whether the server speaks gRPC, without TLS: such a one begins with HTTP/2's settings, before it is asked.

    Raises
    ------
    UsageError
        If it is no such address.
    BuildError
        If nobody listens there, or somebody who speaks something else.
    """
    host, port = _parse(address, schemes)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_WITHIN_S) as connection:
            if is_grpc and connection.recv(_FRAME_HEADER_BYTES)[3:4] != bytes([_SETTINGS]):
                raise OSError("who listens there speaks something else")
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
